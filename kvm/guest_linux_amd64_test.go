package kvm

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kvm/internal/asm"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Where things are in a test guest's memory.
const (
	guestMemory = 2 << 20
	codeAddr    = 0x1000
	stackTop    = 0x8000
	dataAddr    = 0x9000
	pageTables  = 0x10000 // four pages
	mmioAddr    = 0x40_0000
	lapicAddr   = 0xfee0_0000
)

// guestDeadline ends a guest that hangs; nothing here takes a hundredth of it on real hardware.
const guestDeadline = 4 * time.Minute

// guest is a machine with one vCPU and 2 MiB of memory at 0, run by the test's own goroutine.
type guest struct {
	tb      testing.TB
	sys     *System
	vm      *VM
	cpu     *VCPU
	mem     []byte
	expired atomic.Bool
}

// newGuest makes a machine; with irqchip it has the in-kernel interrupt controllers.
func newGuest(tb testing.TB, irqchip bool) *guest {
	tb.Helper()
	kvmtest.Require(tb)
	g := &guest{tb: tb}
	var err error
	if g.sys, err = Open(kvmtest.Device); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { g.check(g.sys.Close()) })
	g.vm, err = g.sys.CreateVM()
	g.check(err)
	g.check(g.vm.SetTSSAddr(0xfffbd000))
	if irqchip {
		g.check(g.vm.CreateIRQChip())
	}
	g.mem, err = unix.Mmap(-1, 0, guestMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	g.check(err)
	g.check(g.vm.SetMemoryRegion(g.region(0)))
	g.cpu, err = g.vm.CreateVCPU(0)
	g.check(err)
	cpuid, err := g.sys.SupportedCPUID()
	g.check(err)
	g.check(g.cpu.SetCPUID(cpuid))

	runtime.LockOSThread()
	watchdog := time.AfterFunc(guestDeadline, func() {
		g.expired.Store(true)
		_ = g.cpu.Kick()
	})
	tb.Cleanup(func() {
		watchdog.Stop()
		runtime.UnlockOSThread()
		g.check(g.cpu.Close())
		g.check(g.vm.Close())
		g.check(unix.Munmap(g.mem))
	})
	return g
}

// region is the slot that holds all of the memory.
func (g *guest) region(flags uint32) MemoryRegion {
	// SAFETY: mem is a mapping, which the collector does not move, unmapped after the vCPU and
	// the machine are closed.
	return MemoryRegion{Flags: flags, Size: guestMemory, HostAddr: uintptr(unsafe.Pointer(&g.mem[0]))}
}

func (g *guest) check(err error) {
	g.tb.Helper()
	if err != nil {
		g.tb.Fatal(err)
	}
}

// real loads a real-mode snippet at codeAddr and points the vCPU at it, all segments 0.
func (g *guest) real(a *asm.Asm) {
	g.tb.Helper()
	copy(g.mem[codeAddr:], a.Bytes())
	s, err := g.cpu.SRegs()
	g.check(err)
	for _, seg := range []*Segment{&s.CS, &s.DS, &s.ES, &s.SS} {
		seg.Base, seg.Selector = 0, 0
	}
	g.check(g.cpu.SetSRegs(s))
	g.check(g.cpu.SetRegs(Regs{RIP: codeAddr, RSP: stackTop, RFLAGS: 2}))
}

// long loads a long-mode snippet and points the vCPU at it, with the first GiB and the
// local APIC identity-mapped.
func (g *guest) long(a *asm.Asm) {
	g.tb.Helper()
	copy(g.mem[codeAddr:], a.Bytes())
	g.longMode()
	g.check(g.cpu.SetRegs(Regs{RIP: codeAddr, RSP: stackTop, RFLAGS: 2}))
}

// longMode builds page tables and sets the vCPU's system registers for 64-bit code.
func (g *guest) longMode() {
	g.tb.Helper()
	const (
		present, writable, large = 1 << 0, 1 << 1, 1 << 7
		pe, et, ne, wp, pg       = 1 << 0, 1 << 4, 1 << 5, 1 << 16, 1 << 31
		pae, osfxsr              = 1 << 5, 1 << 9
		lme, lma                 = 1 << 8, 1 << 10
	)
	le := binary.LittleEndian
	le.PutUint64(g.mem[pageTables:], pageTables+0x1000|present|writable)
	le.PutUint64(g.mem[pageTables+0x1000:], pageTables+0x2000|present|writable)
	for i := range uint64(512) {
		le.PutUint64(g.mem[pageTables+0x2000+8*i:], i<<21|present|writable|large)
	}
	le.PutUint64(g.mem[pageTables+0x1000+8*(lapicAddr>>30):], pageTables+0x3000|present|writable)
	le.PutUint64(g.mem[pageTables+0x3000+8*(lapicAddr>>21&511):], lapicAddr|present|writable|large)
	s, err := g.cpu.SRegs()
	g.check(err)
	s.CR3, s.CR4 = pageTables, pae|osfxsr
	s.CR0 = pe | et | ne | wp | pg
	s.EFER = lme | lma
	s.CS = Segment{Limit: 0xffffffff, Selector: 8, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	data := Segment{Limit: 0xffffffff, Selector: 16, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	g.check(g.cpu.SetSRegs(s))
}

// next runs the guest to its next exit other than an interruption.
func (g *guest) next() Exit {
	g.tb.Helper()
	for {
		e, err := g.cpu.Run()
		g.check(err)
		if e.Reason != ExitIntr {
			return e
		}
		if g.expired.Load() {
			r, err := g.cpu.Regs()
			g.tb.Fatalf("guest hangs: rip %#x, error %v", r.RIP, err)
		}
	}
}

// want runs the guest to an exit that must be of a kind.
func (g *guest) want(reason ExitReason) Exit {
	g.tb.Helper()
	e := g.next()
	if e.Reason != reason {
		detail := ""
		if i, err := e.InternalError(); err == nil {
			detail = ": " + i.String()
		}
		g.tb.Fatalf("exit %v%s, want %v", e.Reason, detail, reason)
	}
	return e
}

// wantIO runs the guest to a port access.
func (g *guest) wantIO(port uint16, write bool) IOAccess {
	g.tb.Helper()
	io, err := g.want(ExitIO).IO()
	g.check(err)
	if io.Port != port || io.Write != write {
		g.tb.Fatalf("port %#x write %v, want port %#x write %v", io.Port, io.Write, port, write)
	}
	return io
}

// wantOut runs the guest to a write to a port and returns the value.
func (g *guest) wantOut(port uint16) uint64 {
	g.tb.Helper()
	io := g.wantIO(port, true)
	if io.Count != 1 || len(io.Data) != io.Size {
		g.tb.Fatalf("%+v, want one access", io)
	}
	return number(io.Data)
}

// finish completes the access that the last exit began, without running the guest further.
func (g *guest) finish() {
	g.tb.Helper()
	g.check(g.cpu.Kick())
	e, err := g.cpu.Run()
	g.check(err)
	if e.Reason != ExitIntr {
		g.tb.Fatalf("exit %v while finishing an access", e.Reason)
	}
}

// number reads a little-endian number of 1 to 8 bytes.
func number(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}

// eventfd makes an eventfd that does not block.
func eventfd(tb testing.TB) int {
	tb.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// signal adds one to an eventfd.
func signal(tb testing.TB, fd int) {
	tb.Helper()
	if _, err := unix.Write(fd, binary.LittleEndian.AppendUint64(nil, 1)); err != nil {
		tb.Fatal(err)
	}
}

// drain returns and clears an eventfd's count.
func drain(tb testing.TB, fd int) uint64 {
	tb.Helper()
	var b [8]byte
	_, err := unix.Read(fd, b[:])
	if errors.Is(err, unix.EAGAIN) {
		return 0
	}
	if err != nil {
		tb.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}
