package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/boot"
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
	// entropySize is how much of the host's randomness a guest begins with, in bytes.
	entropySize = 64

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
	_ = [1]struct{}{}[vmm.ReadyMark-proto.ReadyMark]
)

// bringUp boots the sandbox whose record s has, and sees to its end. After an
// error nothing of it is left but the record.
func (s *Sandbox) bringUp(ctx context.Context, begin time.Time) (err error) {
	if s.root, err = openRoot(ctx, s.cfg, s.info.Root, s.record.dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.root.close())
		}
	}()
	s.adopt(s.root)
	err = s.attempt(ctx, begin)
	if s.template.failed(ctx, err) {
		err = s.attempt(ctx, begin)
	}
	if err != nil {
		return err
	}
	s.timings.Total = time.Since(begin)
	s.info.Status, s.info.Started, s.info.Ports = StatusRunning, time.Now().UTC(), s.Ports()
	if err := s.record.write(s.info); err != nil {
		return errors.Join(err, s.agent.Close(), s.machine.Close(), s.devices.close())
	}
	if d := s.cfg.MaxDuration; d > 0 {
		s.expiry = time.AfterFunc(d, func() { s.stop(context.Background(), expiryTimeout, expiryGrace) })
	}
	s.serveControl()
	go s.watch()
	return nil
}

// attempt makes a guest that takes commands, or leaves nothing.
func (s *Sandbox) attempt(ctx context.Context, begin time.Time) (err error) {
	c := s.cfg
	src, err := openSources(c)
	if err != nil {
		return err
	}
	defer src.close()
	if s.devices, err = openDevices(c, s.record.dir, s.root); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.devices.close())
		}
	}()
	s.timings.Prepare = time.Since(begin)

	control, err := s.devices.vsock.Listen(proto.PortControl)
	if err != nil {
		return err
	}
	defer control.Close()
	if err := s.build(src); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.machine.Close())
		}
	}()
	s.timings.Machine = time.Since(begin) - s.timings.Prepare

	return s.boot(ctx, control)
}

// build makes the machine, which owns the devices from then on.
func (s *Sandbox) build(src *sources) (err error) {
	c := s.cfg
	cfg := vmm.Config{
		CPUs:       c.CPUs,
		Memory:     c.Memory,
		Kernel:     src.kernel,
		Initrd:     src.initramfs,
		InitrdSize: src.size,
		CmdLine:    kernelCmdLine,
		Devices:    s.devices.take(),
		Console:    vmm.Console{Out: s.console, Serial: s.console},
		KVMPath:    c.KVMDevice,
		Logger:     c.Logger.With("sandbox", s.name),
	}
	s.template.begin(c, &cfg)
	defer s.template.built()
	s.machine, err = vmm.New(cfg)
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
func (s *Sandbox) boot(ctx context.Context, control net.Listener) error {
	patience := bootTimeout
	if s.template.used {
		patience = restoreTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the guest did not come up within %v", patience))
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
	if err := s.template.make(ctx, s.machine); err != nil {
		return s.bootErr(ctx, err)
	}
	agent, err := client.Accept(ctx, control, func(ctx context.Context) (net.Conn, error) { return s.devices.vsock.Dial(ctx, proto.PortExec) })
	if err != nil {
		return s.bootErr(ctx, err)
	}
	greeted := time.Now()
	s.timings.Kernel, s.timings.Template = s.machine.BootTime(), s.template.used
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
		return s.setupErr(se)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// setupErr names the option that the guest could not follow, or says that the
// image is at fault.
func (s *Sandbox) setupErr(se *proto.SetupError) error {
	c := s.cfg
	var option string
	switch se.Kind {
	case proto.SetupHostname:
		option = "WithHostname"
	case proto.SetupWorkdir:
		if option = "WithWorkdir"; c.Workdir == "" {
			option = "working directory of the image"
		}
	case proto.SetupUser:
		if option = "WithUser"; c.User == "" {
			option = "user of the image"
		}
	case proto.SetupRlimit:
		option = "WithRlimits"
	case proto.SetupMount:
		option = "WithMounts"
	case proto.SetupScript:
		option = "WithScripts"
	case proto.SetupRoot:
		if s.root.kind != rootDisk {
			return se
		}
		option = "WithImage: " + c.Image
	default:
		return se
	}
	return invalid(option, "%s", se.Message)
}

// restricted takes from mounts what the security profile forbids.
func (c *config) restricted(mounts []proto.Mount) []proto.Mount {
	if c.Security != SecurityRestricted {
		return mounts
	}
	mounts = slices.Clone(mounts)
	for i := range mounts {
		mounts[i].NoSuid, mounts[i].NoDev = true, true
	}
	return mounts
}

// setup is what the agent is told.
func (s *Sandbox) setup() *proto.Setup {
	c := s.cfg
	entropy := make([]byte, entropySize)
	rand.Read(entropy) // never fails
	scripts := make([]proto.Script, 0, len(c.Scripts))
	for _, name := range slices.Sorted(maps.Keys(c.Scripts)) {
		scripts = append(scripts, proto.Script{Name: name, Content: c.Scripts[name]})
	}
	return &proto.Setup{
		Hostname: c.Hostname,
		Root:     s.devices.root,
		Mounts:   c.restricted(s.devices.mounts),
		Env:      envList(merged(imageEnv(s.root.image.Env), c.Env)),
		Workdir:  cmp.Or(c.Workdir, imageWorkdir(s.root.image.Workdir)),
		User:     cmp.Or(c.User, s.root.image.User),
		Rlimits:  rlimitList(c.Rlimits),
		Time:     time.Now().UnixNano(),
		Entropy:  string(entropy),
		Disks:    s.template.disks(s.devices.list),
		Scripts:  scripts,
		// An image's directory need not be in its layers.
		MakeWorkdir: c.Workdir == "",
		Restricted:  c.Security == SecurityRestricted,
		Network:     s.devices.net.setup(c),
	}
}
