package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/internal/kvmprobe"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/rootfs/base"
	"github.com/hutchvm/hutch/virtio/balloon"
	"github.com/hutchvm/hutch/virtio/blk"
	"github.com/hutchvm/hutch/virtio/rng"
	"github.com/hutchvm/hutch/virtio/vsock"
	"github.com/hutchvm/hutch/vmm"
)

const (
	// guestCID is the guest's vsock address; each machine has a bus of its
	// own, so it is the same in all of them. 0 to 2 have other meanings.
	guestCID = 3
	// bootTimeout bounds the time from the start to a guest that is set up. It
	// takes well under a second on hardware and minutes on a host that is
	// swamped; this only ends a guest that hangs.
	bootTimeout = 5 * time.Minute
	// baseSerial is how the agent finds the base image's disk.
	baseSerial = "hutch-base"

	// kernelCmdLine: reboot by the keyboard controller, which the machine
	// tells from a triple fault; no probing of hardware that is not there; no
	// tests at boot.
	kernelCmdLine = "reboot=k panic=-1 quiet loglevel=1 console=hvc0 8250.nr_uarts=0 tsc=reliable no_timer_check" +
		" random.trust_cpu=on cryptomgr.notests swiotlb=noforce"
)

// Agent and machine know nothing of each other, but must agree on the control port.
var (
	_ = [1]struct{}{}[vmm.ControlPort-proto.ControlIOPort]
	_ = [1]struct{}{}[vmm.BootMark-proto.BootMark]
	_ = [1]struct{}{}[vmm.PowerOffMark-proto.PowerOffMark]
)

// Create boots a sandbox and returns when it takes commands. The name is 1 to
// 128 letters, digits, '.', '_' and '-', the first a letter or digit; of
// several creates of one name exactly one succeeds, the others get
// ErrAlreadyExists. Cancelling ctx before Create returned leaves nothing
// behind; afterwards it has no effect.
func Create(ctx context.Context, name string, opts ...Option) (*Sandbox, error) {
	begin := time.Now()
	c, err := resolve(name, opts)
	if err != nil {
		return nil, newOpError("create", name, err)
	}
	s := &Sandbox{name: name, cfg: c, status: StatusRunning, console: &consoleLog{}, ended: make(chan struct{})}
	s.idle.L = &s.mu
	if err := s.create(ctx, begin); err != nil {
		return nil, newOpError("create", name, err)
	}
	return s, nil
}

func (s *Sandbox) create(ctx context.Context, begin time.Time) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c := s.cfg
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if probe := kvmprobe.Probe(); !probe.Usable && c.KVMDevice == "" {
		return noKVM(probe)
	}
	if s.record, err = claim(c); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.record.remove())
		}
	}()
	src, err := openSources(c)
	if err != nil {
		return err
	}
	defer src.close()
	s.base = src.base.File
	defer func() {
		if err != nil {
			s.base.Close()
		}
	}()
	s.timings.Prepare = time.Since(begin)

	vs, err := vsock.New(vsock.Config{GuestCID: guestCID})
	if err != nil {
		return err
	}
	control, err := vs.Listen(proto.PortControl)
	if err != nil {
		return err
	}
	defer control.Close()
	if err := s.build(src, vs); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.machine.Close())
		}
	}()
	s.timings.Machine = time.Since(begin) - s.timings.Prepare

	if err := s.boot(ctx, control, vs); err != nil {
		return err
	}
	s.timings.Total = time.Since(begin)
	if c.MaxDuration > 0 {
		s.expiry = time.AfterFunc(c.MaxDuration, func() { s.stop(context.Background(), expiryTimeout, expiryGrace) })
	}
	go s.watch()
	return nil
}

// sources are the files that a machine is built of.
type sources struct {
	files     []*os.File
	kernel    vmm.KernelSource
	initramfs *os.File
	size      int64
	base      *base.Image // stays open as long as the machine lives
}

// close closes what the machine, once built, does not need any more.
func (s *sources) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// openSources opens kernel, initramfs and base image: the embedded ones from
// the cache under home, or those that the options name.
func openSources(c *config) (_ *sources, err error) {
	cache := filepath.Join(c.Home, "cache")
	src := &sources{}
	defer func() {
		if err != nil {
			src.close()
		}
	}()
	if c.Kernel != "" {
		f, size, err := openRegular("WithKernel", c.Kernel)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, f)
		src.kernel = vmm.KernelSource{Reader: f, Size: size}
	} else {
		img, err := kernel.Open(cache)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, img.File)
		src.kernel = vmm.KernelSource{Flat: flat(img)}
	}
	if c.Initramfs != "" {
		f, size, err := openRegular("WithInitramfs", c.Initramfs)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, f)
		if err := initramfs.Check(f, size); err != nil {
			return nil, fmt.Errorf("%w: WithInitramfs: %s: %w", ErrInvalidConfig, c.Initramfs, err)
		}
		src.initramfs, src.size = f, size
	} else {
		a, err := initramfs.Open(cache)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, a.File)
		src.initramfs, src.size = a.File, a.Size
	}
	src.base, err = base.Open(cache)
	return src, err
}

// flat says where the embedded kernel's parts belong.
func flat(img *kernel.Image) *boot.Flat {
	f := &boot.Flat{File: img.File, Base: img.Base, Size: uint64(img.Size), Span: img.MemSize, Entry: img.Entry}
	for _, s := range img.Parts {
		f.Segments = append(f.Segments, boot.FlatSegment{Offset: uint64(s.Offset), Size: uint64(s.Size), Shared: s.Shared})
	}
	return f
}

// openRegular opens a file that an option names.
func openRegular(option, path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrInvalidConfig, option, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New(path + " is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrInvalidConfig, option, err)
	}
	return f, st.Size(), nil
}

// build makes the machine; on success it owns the devices.
func (s *Sandbox) build(src *sources, vs *vsock.Device) error {
	c := s.cfg
	image, err := blk.NewFile(src.base.File)
	if err != nil {
		return err
	}
	disk, err := blk.New(blk.Config{Backend: image, ReadOnly: true, Serial: baseSerial})
	if err != nil {
		return err
	}
	entropy, err := rng.New(rng.Config{})
	if err != nil {
		return err
	}
	s.machine, err = vmm.New(vmm.Config{
		CPUs:       c.CPUs,
		Memory:     c.Memory,
		Kernel:     src.kernel,
		Initrd:     src.initramfs,
		InitrdSize: src.size,
		CmdLine:    kernelCmdLine,
		Devices: []vmm.Device{
			{Name: "base disk", Device: disk},
			{Name: "vsock", Device: vs},
			{Name: "rng", Device: entropy},
			{Name: "balloon", Device: balloon.New(balloon.Config{})},
		},
		Console: vmm.Console{Out: s.console, Serial: s.console},
		KVMPath: c.KVMDevice,
		Logger:  c.Logger.With("sandbox", s.name),
	})
	return c.explain(err)
}

// explain blames a machine that cannot be built on what is at fault.
func (c *config) explain(err error) error {
	var be *boot.OpError
	switch {
	case errors.Is(err, vmm.ErrKVM):
		return fmt.Errorf("%w: %w", ErrNoKVM, err)
	case c.Kernel != "" && errors.As(err, &be):
		return fmt.Errorf("%w: WithKernel: %s: %w", ErrInvalidConfig, c.Kernel, err)
	}
	return err
}

// boot starts the machine, waits for the agent and sets the guest up.
func (s *Sandbox) boot(ctx context.Context, control net.Listener, vs *vsock.Device) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("the guest did not come up within %v", bootTimeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	started := time.Now()
	if err := s.machine.Start(context.Background()); err != nil {
		return err
	}
	// While the guest boots there is time for what killed processes left.
	if err := sweep(s.cfg.Home); err != nil {
		s.cfg.Logger.Warn("sweeping records", "error", err)
	}
	// A machine that ends before it is ready ends the wait for it.
	ready := make(chan struct{})
	defer close(ready)
	go func() {
		select {
		case <-s.machine.Done():
			stop(&CrashError{Reason: s.machine.Exit().String(), Console: s.console.String()})
		case <-ready:
		}
	}()
	agent, err := client.Accept(ctx, control, func(ctx context.Context) (net.Conn, error) { return vs.Dial(ctx, proto.PortExec) })
	if err != nil {
		return s.bootErr(ctx, err)
	}
	greeted := time.Now()
	s.timings.Kernel = s.machine.BootTime()
	s.timings.Agent = greeted.Sub(started) - s.timings.Kernel
	if _, err := agent.Setup(ctx, s.setup()); err != nil {
		agent.Close()
		return s.bootErr(ctx, err)
	}
	s.timings.Setup = time.Since(greeted)
	s.agent = agent
	return nil
}

func (s *Sandbox) bootErr(ctx context.Context, err error) error {
	var se *proto.SetupError
	if errors.As(err, &se) {
		return setupErr(se)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// setupErr names the option that the guest could not follow.
func setupErr(se *proto.SetupError) error {
	option := map[proto.SetupErrorKind]string{
		proto.SetupHostname: "WithHostname",
		proto.SetupWorkdir:  "WithWorkdir",
		proto.SetupUser:     "WithUser",
		proto.SetupRlimit:   "WithRlimits",
	}[se.Kind]
	if option == "" {
		return se
	}
	return invalid(option, "%s", se.Message)
}

// setup is what the agent is told.
func (s *Sandbox) setup() *proto.Setup {
	c := s.cfg
	return &proto.Setup{
		Hostname: c.Hostname,
		Root:     proto.Root{Base: proto.Disk{Serial: baseSerial, FSType: "erofs"}},
		Env:      envList(c.Env),
		Workdir:  c.Workdir,
		User:     c.User,
		Rlimits:  rlimitList(c.Rlimits),
		Time:     time.Now().UnixNano(),
	}
}

// noKVM is the error for a host whose KVM is not usable.
func noKVM(r kvmprobe.Result) error {
	if r.Reason == kvmprobe.Platform {
		return fmt.Errorf("%w: %w", ErrUnsupported, r.Error())
	}
	return fmt.Errorf("%w: %w", ErrNoKVM, r.Error())
}
