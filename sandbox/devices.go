package sandbox

import (
	"errors"
	"io"
	"slices"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/rootfs/share"
	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/balloon"
	"github.com/hutchvm/hutch/virtio/blk"
	"github.com/hutchvm/hutch/virtio/rng"
	"github.com/hutchvm/hutch/virtio/vsock"
	"github.com/hutchvm/hutch/vmm"
)

// devices are a machine's devices in the order in which the guest sees them,
// with what the agent has to be told about each and what is to be closed when
// the machine has ended. Which devices there are, and in which order, follows
// from the configuration alone.
type devices struct {
	list   []vmm.Device
	root   proto.Root    // what the disks and shares of the root are for
	mounts []proto.Mount // and the others
	vsock  *vsock.Device
	files  *share.Server // behind the virtio-fs device, nil if there is none
	dir    string        // of the sandbox's record
	source *root
	net    *network // nil when there is none

	closers []func() error // in reverse order, once no device uses them
	handed  bool           // list belongs to a machine
}

// add appends a device.
func (d *devices) add(name string, dev virtio.Device) {
	d.list = append(d.list, vmm.Device{Name: name, Device: dev})
}

// addDisk appends a disk; the guest finds it by its serial.
func (d *devices) addDisk(name string, cfg blk.Config) error {
	dev, err := blk.New(cfg)
	if err == nil {
		d.add(name, dev)
	}
	return err
}

// onClose has f called when the machine has ended, before those of earlier calls.
func (d *devices) onClose(f func() error) { d.closers = append(d.closers, f) }

// take hands the devices to a machine, which closes them.
func (d *devices) take() []vmm.Device {
	d.handed = true
	return d.list
}

// close closes the devices, unless a machine has them, and then what is behind
// them. The machine must have been closed. It is idempotent.
func (d *devices) close() error {
	var errs []error
	if !d.handed {
		for _, dev := range d.list {
			if c, ok := dev.Device.(io.Closer); ok {
				errs = append(errs, c.Close())
			}
		}
	}
	for _, f := range slices.Backward(d.closers) {
		errs = append(errs, f())
	}
	d.list, d.closers = nil, nil
	return errors.Join(errs...)
}

// openDevices makes the devices that c asks for; dir is the sandbox's record,
// and source outlives them.
func openDevices(c *config, dir string, source *root) (_ *devices, err error) {
	d := &devices{dir: dir, source: source}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	for _, add := range []func(*config) error{d.addRoot, d.addUpper, d.addMounts, d.addVsock, d.addRNG, d.addBalloon, d.addNetwork} {
		if err := add(c); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *devices) addVsock(*config) (err error) {
	if d.vsock, err = vsock.New(vsock.Config{GuestCID: guestCID}); err == nil {
		d.add("vsock", d.vsock)
	}
	return err
}

func (d *devices) addRNG(*config) error {
	dev, err := rng.New(rng.Config{})
	if err == nil {
		d.add("rng", dev)
	}
	return err
}

func (d *devices) addBalloon(*config) error {
	d.add("balloon", balloon.New(balloon.Config{}))
	return nil
}
