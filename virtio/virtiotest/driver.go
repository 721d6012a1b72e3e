// Package virtiotest is the driver's side of virtio, for tests of devices: it
// drives an MMIO transport as a guest's kernel would, with its own memory, its
// own queues and real eventfds, and can misbehave in every way a guest can.
//
// By default the memory is ordinary Go memory, so that the race detector checks
// that device and driver synchronize through the rings alone.
package virtiotest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

// MemBase is the guest physical address where the default memory begins.
const MemBase = 1 << 20

// Timeout is how long the methods without a context wait before they fail the
// test. It is generous: tests run inside slow emulation too.
const Timeout = 60 * time.Second

// Options change how a Driver behaves. The zero value is a driver like Linux:
// all features, indirect descriptors, EVENT_IDX.
type Options struct {
	Mem        *guestmem.Memory // by default 8 MiB at MemBase
	Refuse     uint64           // features that the driver does not accept
	NoIndirect bool             // same for VIRTIO_F_INDIRECT_DESC
	NoEventIdx bool             // same for VIRTIO_F_EVENT_IDX
	QueueSize  uint16           // limit on the queues' sizes; 0 is the device's
	Unused     []int            // queues that the driver does not set up
}

// Driver drives one device.
type Driver struct {
	TB       testing.TB
	T        *virtio.MMIO
	Mem      *guestmem.Memory
	Features uint64 // what was negotiated
	Queues   []*Queue

	opt   Options
	alloc allocator

	mu       sync.Mutex
	irq      *os.File      // a duplicate of the transport's eventfd
	irqDone  chan struct{} // the interrupt goroutine ended
	changed  chan struct{} // closed at the next interrupt or failure
	configs  int           // configuration interrupts seen
	irqs     int           // interrupts seen
	failures []error       // what OnFailure said
}

// New makes a transport for dev, negotiates and sets up all queues: the device
// is live when it returns. All is closed when the test ends.
func New(tb testing.TB, dev virtio.Device, opts ...Options) *Driver {
	tb.Helper()
	d := Attach(tb, dev, opts...)
	d.Start()
	return d
}

// Attach makes a transport for dev and leaves it as it is after power-on.
func Attach(tb testing.TB, dev virtio.Device, opts ...Options) *Driver {
	tb.Helper()
	d := &Driver{TB: tb, changed: make(chan struct{})}
	if len(opts) > 0 {
		d.opt = opts[0]
	}
	d.Mem = d.opt.Mem
	if d.Mem == nil {
		mem, err := guestmem.FromBytes(MemBase, make([]byte, 8<<20))
		if err != nil {
			tb.Fatal(err)
		}
		d.Mem = mem
	}
	r := d.Mem.Regions()[0]
	d.alloc.free = []extent{{r.GPA, r.GPA + r.Size}}
	d.plug(dev)
	tb.Cleanup(d.unplug)
	return d
}

// plug makes the transport and begins to listen for interrupts.
func (d *Driver) plug(dev virtio.Device) {
	d.TB.Helper()
	t, err := virtio.NewMMIO(dev, virtio.MMIOOptions{
		Mem:  d.Mem,
		Name: "test",
		OnFailure: func(err error) {
			d.mu.Lock()
			d.failures = append(d.failures, err)
			d.wakeLocked()
			d.mu.Unlock()
		},
	})
	if err != nil {
		d.TB.Fatal(err)
	}
	d.T = t
	d.irq, err = dup(t.InterruptFD())
	if err != nil {
		d.TB.Fatal(err)
	}
	d.irqDone = make(chan struct{})
	go d.irqLoop(t, d.irq, d.irqDone)
}

func (d *Driver) unplug() {
	if err := d.T.Close(); err != nil {
		d.TB.Errorf("close transport: %v", err)
	}
	d.irq.Close()
	<-d.irqDone
}

// irqLoop is the interrupt handler.
func (d *Driver) irqLoop(t *virtio.MMIO, irq *os.File, done chan struct{}) {
	defer close(done)
	var buf [8]byte
	for {
		if _, err := irq.Read(buf[:]); err != nil {
			return
		}
		var p [4]byte
		t.Read(virtio.RegInterruptStatus, p[:])
		t.Write(virtio.RegInterruptACK, p[:])
		d.mu.Lock()
		d.irqs++
		if p[0]&2 != 0 {
			d.configs++
		}
		d.wakeLocked()
		d.mu.Unlock()
	}
}

// wakeLocked makes every Wait look again. The caller holds d.mu.
func (d *Driver) wakeLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Start negotiates, sets up the queues and sets DRIVER_OK, as 3.1.1 demands.
func (d *Driver) Start() {
	d.TB.Helper()
	refuse := d.opt.Refuse
	if d.opt.NoIndirect {
		refuse |= virtio.FeatureIndirectDesc
	}
	if d.opt.NoEventIdx {
		refuse |= virtio.FeatureEventIdx
	}
	if !d.Negotiate(d.Offered() &^ refuse) {
		d.TB.Fatalf("device refused features %#x", d.Features)
	}
	d.SetupQueues()
	if st := d.DriverOK(); st != 15 {
		d.TB.Fatalf("status %#x after DRIVER_OK, failures %v", st, d.Failures())
	}
}

// Restart resets the device and starts it again with new queues. What was in
// flight is forgotten.
func (d *Driver) Restart() {
	d.TB.Helper()
	d.Reset()
	d.Start()
}

// Reset writes 0 to the status register and waits until it reads as 0.
func (d *Driver) Reset() {
	d.TB.Helper()
	d.Write32(virtio.RegStatus, 0)
	if st := d.Status(); st != 0 {
		d.TB.Fatalf("status %#x after reset", st)
	}
	for _, q := range d.Queues {
		if q != nil {
			q.release()
		}
	}
	d.Queues = nil
}

// Offered reads the features that the device offers.
func (d *Driver) Offered() uint64 {
	d.Write32(virtio.RegDeviceFeaturesSel, 0)
	f := uint64(d.Read32(virtio.RegDeviceFeatures))
	d.Write32(virtio.RegDeviceFeaturesSel, 1)
	return f | uint64(d.Read32(virtio.RegDeviceFeatures))<<32
}

// Negotiate does the status steps up to FEATURES_OK with the given features and
// reports whether the device agreed.
func (d *Driver) Negotiate(features uint64) bool {
	d.Features = features
	d.Write32(virtio.RegStatus, 1)
	d.Write32(virtio.RegStatus, 3)
	d.Write32(virtio.RegDriverFeaturesSel, 0)
	d.Write32(virtio.RegDriverFeatures, uint32(features))
	d.Write32(virtio.RegDriverFeaturesSel, 1)
	d.Write32(virtio.RegDriverFeatures, uint32(features>>32))
	d.Write32(virtio.RegStatus, 11)
	return d.Status() == 11
}

// SetupQueues sets up every queue that the device has. It may be called again
// after a Reset.
func (d *Driver) SetupQueues() {
	d.TB.Helper()
	d.Queues = nil
	unused := make(map[int]bool)
	for _, i := range d.opt.Unused {
		unused[i] = true
	}
	for i := 0; ; i++ {
		d.Write32(virtio.RegQueueSel, uint32(i))
		size := d.Read32(virtio.RegQueueSizeMax)
		if size == 0 {
			return
		}
		if unused[i] {
			d.Queues = append(d.Queues, nil)
			continue
		}
		if d.opt.QueueSize != 0 {
			size = min(size, uint32(d.opt.QueueSize))
		}
		q := newQueue(d, i, uint16(size))
		d.Queues = append(d.Queues, q)
		q.Configure()
		if d.Read32(virtio.RegQueueReady) != 1 {
			d.TB.Fatalf("queue %d of size %d is not ready", i, size)
		}
	}
}

// DriverOK sets DRIVER_OK and returns the status.
func (d *Driver) DriverOK() uint32 {
	d.Write32(virtio.RegStatus, 15)
	return d.Status()
}

// Migrate moves the driver to a new device, over the same memory, as restoring a
// snapshot does. The transport's state goes through JSON. The caller paused d.T,
// saved the old device's state and restored it into dev.
func (d *Driver) Migrate(dev virtio.Device) {
	d.TB.Helper()
	st, err := d.T.Save()
	if err != nil {
		d.TB.Fatal(err)
	}
	b, err := json.Marshal(st)
	if err != nil {
		d.TB.Fatal(err)
	}
	d.unplug()
	d.plug(dev)
	d.T.Pause()
	var st2 virtio.State
	if err := json.Unmarshal(b, &st2); err != nil {
		d.TB.Fatal(err)
	}
	if err := d.T.Restore(st2); err != nil {
		d.TB.Fatal(err)
	}
	d.T.Resume()
}

// Read32 loads a register.
func (d *Driver) Read32(off uint64) uint32 {
	var p [4]byte
	d.T.Read(off, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

// Write32 stores to a register.
func (d *Driver) Write32(off uint64, v uint32) {
	d.T.Write(off, binary.LittleEndian.AppendUint32(nil, v))
}

// Status reads the device status.
func (d *Driver) Status() uint32 { return d.Read32(virtio.RegStatus) }

// Config reads n (1, 2, 4 or 8) bytes of the configuration space.
func (d *Driver) Config(off uint64, n int) uint64 {
	var p [8]byte
	d.T.Read(virtio.RegConfig+off, p[:n])
	return binary.LittleEndian.Uint64(p[:])
}

// SetConfig writes the low n (1, 2, 4 or 8) bytes of v to the configuration space.
func (d *Driver) SetConfig(off uint64, n int, v uint64) {
	d.T.Write(virtio.RegConfig+off, binary.LittleEndian.AppendUint64(nil, v)[:n])
}

// Failures are the errors that the transport reported.
func (d *Driver) Failures() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]error(nil), d.failures...)
}

// Interrupts is the number of interrupts that were taken.
func (d *Driver) Interrupts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.irqs
}

// ConfigInterrupts is the number of configuration interrupts that were taken.
func (d *Driver) ConfigInterrupts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.configs
}

// Wait waits until cond holds; it is asked again after each interrupt.
func (d *Driver) Wait(ctx context.Context, cond func() bool) error {
	for {
		d.mu.Lock()
		changed := d.changed
		d.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// WaitNeedsReset waits for DEVICE_NEEDS_RESET and returns the first failure.
func (d *Driver) WaitNeedsReset() error {
	d.TB.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if err := d.Wait(ctx, func() bool { return d.Status()&virtio.StatusNeedsReset != 0 && len(d.Failures()) > 0 }); err != nil {
		d.TB.Fatalf("waiting for DEVICE_NEEDS_RESET: %v", err)
	}
	return d.Failures()[0]
}

// WaitConfig waits until more than n configuration interrupts were taken.
func (d *Driver) WaitConfig(n int) {
	d.TB.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	if err := d.Wait(ctx, func() bool { return d.ConfigInterrupts() > n }); err != nil {
		d.TB.Fatalf("waiting for a configuration interrupt: %v", err)
	}
}

// CheckHealthy fails the test when the device failed.
func (d *Driver) CheckHealthy() {
	d.TB.Helper()
	if f := d.Failures(); len(f) != 0 {
		d.TB.Errorf("device failed: %v", f)
	}
	if st := d.Status(); st != 15 {
		d.TB.Errorf("status %#x, want 0xf", st)
	}
}

// CheckNoPanic fails the test when the device panicked.
func (d *Driver) CheckNoPanic() {
	d.TB.Helper()
	for _, err := range d.Failures() {
		if errors.Is(err, virtio.ErrPanic) {
			d.TB.Errorf("%v", err)
		}
	}
}
