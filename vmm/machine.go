package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/kvm"
	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/console"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

const (
	// maxMemory keeps guest physical addresses within 39 bits, which every
	// x86-64 processor with virtualization has.
	maxMemory = 1<<39 - boot.HoleEnd
	// tssAddr is three pages, and identityMapAddr one, that KVM on Intel wants in the hole.
	tssAddr         = 0xfffbd000
	identityMapAddr = 0xfffbc000
)

// memoryOptions: huge pages make a boot take a third less time, since each page
// that the guest touches first is an exit, and hosts give them to anonymous
// memory only, unless told otherwise (see RATIONALE.md).
var memoryOptions = guestmem.Options{Backing: guestmem.Anonymous, HugePages: true}

// Machine is a virtual machine. Its methods may be called from any goroutine.
type Machine struct {
	log    *slog.Logger
	system *kvm.System
	vm     *kvm.VM
	mem    *guestmem.Memory
	vcpus  []*vcpu
	slots  []slot
	// hotCandidates are the 2 MiB parts of memory that hold some of a snapshot's.
	hotCandidates []uint64
	panics        *panicWatch
	serial        io.Writer

	holdWhenReady bool
	ready         chan struct{} // closed at ReadyMark
	readyOnce     sync.Once

	start    time.Time    // of Start
	bootMark atomic.Int64 // ns from Start to BootMark, 0 before

	mu      sync.Mutex
	changed sync.Cond // state, parked, live or released changed
	state   State
	exit    Exit
	live    int // vCPU goroutines that have not returned
	parked  int // of them, those that wait for Resume
	// released ends the hold at ReadyMark.
	released bool
	done     chan struct{}
	unwatch  func() bool
	// watchers are the machine's goroutines that are not vCPUs.
	watchers sync.WaitGroup
	closing  sync.Once
}

// New builds a machine: memory, kernel, devices and vCPUs. Nothing runs until
// Start. The caller must Close it.
func New(cfg Config) (_ *Machine, err error) {
	m := &Machine{
		log: cfg.Logger, serial: cfg.Console.Serial, holdWhenReady: cfg.HoldWhenReady,
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	m.changed.L = &m.mu
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.serial == nil {
		m.serial = io.Discard
	}
	defer func() {
		if err != nil {
			m.state = Stopped
			m.release()
		}
	}()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := m.openKVM(cfg.KVMPath); err != nil {
		return nil, opErr("create machine", err)
	}
	if err := m.mapMemory(cfg.Memory); err != nil {
		return nil, opErr("map memory", err)
	}
	if err := m.attach(&cfg); err != nil {
		return nil, err
	}
	if cfg.Snapshot != nil {
		err = opErr("restore", m.restore(cfg.Snapshot, cfg.Hot))
	} else {
		err = m.load(&cfg)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Machine) openKVM(path string) error {
	if path == "" {
		path = "/dev/kvm"
	}
	var err error
	if m.system, err = kvm.Open(path); err != nil {
		return fmt.Errorf("%w: %w", ErrKVM, err)
	}
	if m.vm, err = m.system.CreateVM(); err != nil {
		return err
	}
	return errors.Join(
		m.vm.SetTSSAddr(tssAddr),
		m.vm.SetIdentityMapAddr(identityMapAddr),
		m.vm.CreateIRQChip(),
		m.vm.CreatePIT2(kvm.PITConfig{Flags: kvm.PITSpeakerDummy}),
	)
}

func (m *Machine) mapMemory(size uint64) error {
	var err error
	if m.mem, err = memoryOptions.Allocate(boot.RAM(size)...); err != nil {
		return err
	}
	for i, r := range m.mem.Regions() {
		region := kvm.MemoryRegion{Slot: uint32(i), GuestPhys: r.GPA, Size: r.Size, HostAddr: r.HostAddr}
		if err := m.vm.SetMemoryRegion(region); err != nil {
			return err
		}
	}
	return nil
}

// attach puts the console and the configured devices onto the bus.
func (m *Machine) attach(cfg *Config) error {
	m.panics = &panicWatch{out: cfg.Console.Out}
	terminal := console.New(console.Config{Out: m.panics})
	devices := append([]Device{{Name: "console", Device: terminal}}, cfg.Devices...)
	for i, d := range devices {
		mmio, err := virtio.NewMMIO(d.Device, virtio.MMIOOptions{Mem: m.mem, Logger: m.log, Name: d.Name})
		if err != nil {
			return opErr("attach "+d.Name, err)
		}
		s := slot{name: d.Name, mmio: mmio, addr: mmioBase + uint64(i)*mmioSize, irq: irqFirst + uint32(i)}
		m.slots = append(m.slots, s)
		if err := m.vm.IRQFD(mmio.InterruptFD(), s.irq, 0); err != nil {
			return opErr("attach "+d.Name, err)
		}
		for q, fd := range mmio.NotifyFDs() {
			if mmio.Direct() {
				break // kicks are served where they come from
			}
			err := m.vm.IOEventFD(kvm.IOEventFD{
				Addr: s.addr + virtio.RegQueueNotify, Len: 4, FD: int32(fd),
				Datamatch: uint64(q), Flags: kvm.IOEventFDDatamatch,
			})
			if err != nil {
				return opErr("attach "+d.Name, err)
			}
		}
		err = m.vm.IOEventFD(kvm.IOEventFD{
			Addr: s.addr + virtio.RegInterruptACK, Len: 4, FD: int32(mmio.AckFD()),
			Datamatch: virtio.AckUsed, Flags: kvm.IOEventFDDatamatch,
		})
		if err != nil {
			return opErr("attach "+d.Name, err)
		}
	}
	return nil
}

// load puts kernel and initramfs into memory and makes the vCPUs.
func (m *Machine) load(cfg *Config) error {
	var k boot.Kernel
	var err error
	if cfg.Kernel.Flat != nil {
		k, err = boot.LoadFlat(m.mem, *cfg.Kernel.Flat)
	} else {
		k, err = boot.Load(m.mem, cfg.Kernel.Reader, cfg.Kernel.Size)
	}
	if err != nil {
		return opErr("load kernel", err)
	}
	p := boot.Params{Kernel: k, CmdLine: cfg.CmdLine, CPUs: cfg.CPUs}
	for i := range m.slots {
		p.CmdLine += m.slots[i].cmdline()
		p.IRQs = append(p.IRQs, m.slots[i].irq)
	}
	if cfg.Initrd != nil {
		if p.Initrd, err = boot.LoadInitrd(m.mem, k, cfg.Initrd, uint64(cfg.InitrdSize)); err != nil {
			return opErr("load initramfs", err)
		}
	}
	if err := boot.Write(m.mem, p); err != nil {
		return opErr("load kernel", err)
	}
	return opErr("create vCPUs", m.createVCPUs(cfg.CPUs, k))
}

// restore does what load does, from a snapshot.
func (m *Machine) restore(s *Snapshot, hot []uint64) error {
	if len(s.state.Devices) != len(m.slots) {
		return damaged("it has %d devices, the machine %d", len(s.state.Devices), len(m.slots))
	}
	if err := m.mapSnapshot(s, hot); err != nil {
		return err
	}
	if err := m.restoreVCPUs(&s.state); err != nil {
		return err
	}
	for i := range m.slots {
		if err := m.slots[i].restore(&s.state.Devices[i]); err != nil {
			return err
		}
	}
	return m.restoreChips(&s.state)
}

// Start lets the vCPUs run. When ctx ends the machine is killed. It may be called once.
func (m *Machine) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return opErr("start", err)
	}
	if m.state != Created {
		return opErr("start", fmt.Errorf("%w: it is %v", ErrState, m.state))
	}
	m.state, m.start, m.live = Running, time.Now(), len(m.vcpus)
	for i := range m.slots {
		m.slots[i].mmio.Resume() // those of a snapshot wait for this
	}
	for _, c := range m.vcpus {
		go m.runVCPU(c)
	}
	m.watchers.Go(m.watchHalt)
	m.unwatch = context.AfterFunc(ctx, m.Stop)
	return nil
}

// Stop kills the machine; it does not wait, see Done. It is idempotent.
func (m *Machine) Stop() { m.end(Exit{Reason: Killed}) }

// end records why the machine stops, the first reason wins, and makes every vCPU return.
func (m *Machine) end(e Exit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == Stopped {
		return
	}
	m.state, m.exit = Stopped, e
	m.changed.Broadcast()
	for _, c := range m.vcpus {
		c.Kick()
	}
	if m.live == 0 {
		close(m.done)
	}
}

// panicOr is the exit of a guest that reset itself: a panic if it said so.
func (m *Machine) panicOr(r Reason) Exit {
	if s := m.panics.seen.Load(); s != nil {
		return Exit{Reason: Panic, Detail: *s}
	}
	return Exit{Reason: r}
}

// Pause stops all vCPUs between two instructions and quiesces the devices:
// when it returns without error, guest memory does not change until Resume.
func (m *Machine) Pause(ctx context.Context) error {
	m.mu.Lock()
	if m.state != Running {
		defer m.mu.Unlock()
		return opErr("pause", fmt.Errorf("%w: it is %v", ErrState, m.state))
	}
	m.state, m.released = Paused, true
	m.changed.Broadcast()
	for _, c := range m.vcpus {
		c.Kick()
	}
	stop := context.AfterFunc(ctx, func() {
		m.mu.Lock()
		m.changed.Broadcast()
		m.mu.Unlock()
	})
	for m.state == Paused && m.parked < m.live && ctx.Err() == nil {
		m.changed.Wait()
	}
	stop()
	state, err := m.state, ctx.Err()
	m.mu.Unlock()
	if state != Paused {
		return opErr("pause", ErrState)
	}
	if err != nil {
		return errors.Join(opErr("pause", err), m.resumeVCPUs())
	}
	for i := range m.slots {
		m.slots[i].mmio.Pause()
	}
	return nil
}

// Resume undoes Pause.
func (m *Machine) Resume() error {
	m.mu.Lock()
	paused := m.state == Paused
	m.mu.Unlock()
	if !paused {
		return opErr("resume", ErrState)
	}
	for i := range m.slots {
		m.slots[i].mmio.Resume()
	}
	return m.resumeVCPUs()
}

func (m *Machine) resumeVCPUs() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != Paused {
		return opErr("resume", ErrState)
	}
	m.state = Running
	m.changed.Broadcast()
	return nil
}

// hold keeps a vCPU at ReadyMark, if that was asked for. Pause ends it too: the
// vCPU completes its access and parks like the others.
func (m *Machine) hold() {
	m.readyOnce.Do(func() { close(m.ready) })
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.holdWhenReady && !m.released && m.state == Running {
		m.changed.Wait()
	}
}

// Ready is closed when the guest has written ReadyMark. A guest of a snapshot that
// was made there does not write it again.
func (m *Machine) Ready() <-chan struct{} { return m.ready }

// Release lets a guest that is held at ReadyMark go on, now or when it comes there.
func (m *Machine) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.released = true
	m.changed.Broadcast()
}

// State says where in its life the machine is.
func (m *Machine) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Done is closed when the machine has stopped and no vCPU runs any more.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Exit says why the machine stopped.
func (m *Machine) Exit() Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exit
}

// BootTime is the time from Start to the guest's BootMark, 0 if it has not come.
func (m *Machine) BootTime() time.Duration { return time.Duration(m.bootMark.Load()) }

func (m *Machine) sinceStart() int64 { return max(1, int64(time.Since(m.start))) }

// Resident is how much host memory backs the guest's, in bytes.
func (m *Machine) Resident() (uint64, error) { return m.mem.Resident() }

// Close kills the machine if it runs, waits for its vCPUs and devices to end,
// and gives everything back. It is idempotent.
func (m *Machine) Close() error {
	m.Stop()
	<-m.done
	var err error
	m.closing.Do(func() {
		if m.unwatch != nil {
			m.unwatch()
		}
		m.watchers.Wait()
		err = m.release()
	})
	return err
}

// release gives back what New acquired: devices first, since their goroutines
// use the memory, and memory last.
func (m *Machine) release() error {
	var errs []error
	for i := range m.slots {
		errs = append(errs, m.slots[i].mmio.Close())
	}
	for _, c := range m.vcpus {
		errs = append(errs, c.Close())
	}
	if m.vm != nil {
		errs = append(errs, m.vm.Close())
	}
	if m.system != nil {
		errs = append(errs, m.system.Close())
	}
	if m.mem != nil {
		errs = append(errs, m.mem.Close())
	}
	return opErr("close", errors.Join(errs...))
}
