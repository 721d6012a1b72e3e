package kvm

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/hutchvm/hutch/kvm/internal/asm"
)

// Ports and vectors of the interrupt guests.
const (
	readyPort   = 0x10 // written once interrupts are on
	handlerPort = 0x11 // written by a handler, with its vector
	picBase     = 0x20 // vector of line 0 of the master PIC
)

// vectors makes a real-mode guest that has a handler for each vector and waits for interrupts.
// idle is what it waits with.
func (g *guest) vectors(idle func(*asm.Asm), eoi bool, vectors ...byte) {
	g.tb.Helper()
	a := asm.New(asm.Real)
	if eoi {
		// ICW1 to ICW4 of the master PIC, and all lines unmasked (8259A data sheet).
		for _, w := range [][2]byte{{0x20, 0x11}, {0x21, picBase}, {0x21, 4}, {0x21, 1}, {0x21, 0}} {
			a.Mov(asm.AL, uint64(w[1])).Out(w[0], asm.AL)
		}
	}
	a.Sti().Out(readyPort, asm.AL).Label("idle")
	idle(a)
	a.Jmp("idle")
	for _, v := range vectors {
		a.Label(fmt.Sprint(v))
		if eoi {
			a.Mov(asm.AL, 0x20).Out(0x20, asm.AL)
		}
		a.Mov(asm.AL, uint64(v)).Out(handlerPort, asm.AL).Iret()
	}
	g.real(a)
	for _, v := range vectors {
		binary.LittleEndian.PutUint32(g.mem[4*int(v):], uint32(codeAddr+a.Offset(fmt.Sprint(v))))
	}
	g.wantOut(readyPort)
}

func halted(a *asm.Asm) { a.Hlt() }
func busy(a *asm.Asm)   { a.Nop() }

// wantVector runs the guest to the handler of a vector.
func (g *guest) wantVector(v byte) {
	g.tb.Helper()
	if got := g.wantOut(handlerPort); got != uint64(v) {
		g.tb.Fatalf("handler of vector %#x ran, want %#x", got, v)
	}
}

func TestIRQLine(t *testing.T) {
	g := newGuest(t, true)
	g.vectors(halted, true, picBase+5, picBase+6)
	for range 3 {
		for _, line := range []uint32{5, 6} {
			g.check(g.vm.IRQLine(line, true))
			g.wantVector(picBase + byte(line))
			g.check(g.vm.IRQLine(line, false))
		}
	}
}

func TestIRQFD(t *testing.T) {
	g := newGuest(t, true)
	g.vectors(halted, true, picBase+5, picBase+6)
	five, six := eventfd(t), eventfd(t)
	g.check(g.vm.IRQFD(five, 5, 0))
	g.check(g.vm.IRQFD(six, 6, 0))
	for range 3 {
		signal(t, five)
		g.wantVector(picBase + 5)
		signal(t, six)
		g.wantVector(picBase + 6)
	}
	// Line 5 has priority over 6, so it would show if it still were tied to its eventfd.
	g.check(g.vm.IRQFD(five, 5, IRQFDDeassign))
	signal(t, five)
	signal(t, six)
	g.wantVector(picBase + 6)
	if err := g.vm.IRQFD(-1, 7, 0); err == nil {
		t.Error("a descriptor that is none was taken")
	}
}

func TestIRQFDLevel(t *testing.T) {
	g := newGuest(t, true)
	g.vectors(halted, true, picBase+5)
	fd, resample := eventfd(t), eventfd(t)
	g.check(g.vm.IRQFDLevel(fd, resample, 5))
	for range 3 {
		signal(t, fd)
		if n := drain(t, resample); n != 0 {
			t.Fatalf("resampled %d times before the guest's end of interrupt", n)
		}
		g.wantVector(picBase + 5) // after its end of interrupt
		if n := drain(t, resample); n == 0 {
			t.Fatal("no resample after the guest's end of interrupt")
		}
	}
}

// enableLAPIC sets the local APIC's software enable bit.
func (g *guest) enableLAPIC() {
	g.tb.Helper()
	l, err := g.cpu.LAPIC()
	g.check(err)
	l.SetRegister(LAPICSVR, l.Register(LAPICSVR)|1<<8)
	g.check(g.cpu.SetLAPIC(l))
	l, err = g.cpu.LAPIC()
	g.check(err)
	if l.Register(LAPICSVR)&(1<<8) == 0 {
		g.tb.Fatalf("SVR = %#x after enabling", l.Register(LAPICSVR))
	}
}

func TestMSI(t *testing.T) {
	const msiAddress = 0xfee00000 // physical destination 0 (Intel SDM volume 3, 11.11.1)
	g := newGuest(t, true)
	// No handler tells the local APIC of its end, so each vector's class is above the last.
	g.vectors(halted, false, 0x40, 0x50, 0x60)
	g.enableLAPIC()
	delivered, err := g.vm.SignalMSI(MSI{AddressLo: msiAddress, Data: 0x40})
	g.check(err)
	if !delivered {
		t.Error("message not delivered")
	}
	g.wantVector(0x40)

	g.check(g.vm.SetGSIRouting([]Route{
		{GSI: 5, Chip: PICMaster, Pin: 5},
		{GSI: 5, Chip: IOAPIC, Pin: 5},
		{GSI: 24, MSI: &MSI{AddressLo: msiAddress, Data: 0x50}},
		{GSI: 25, MSI: &MSI{AddressLo: msiAddress, Data: 0x60}},
	}))
	for i, v := range []byte{0x50, 0x60} {
		fd := eventfd(t)
		g.check(g.vm.IRQFD(fd, 24+uint32(i), 0))
		signal(t, fd)
		g.wantVector(v)
	}
}

func TestNMI(t *testing.T) {
	g := newGuest(t, true)
	g.vectors(halted, false, 2)
	for range 3 {
		g.check(g.cpu.NMI())
		g.wantVector(2)
	}
}

// TestInterrupt injects vectors into a guest without in-kernel interrupt controllers.
func TestInterrupt(t *testing.T) {
	g := newGuest(t, false)
	g.vectors(busy, false, 0x30, 0x31)
	for _, v := range []byte{0x30, 0x31, 0x30} {
		g.cpu.RequestInterruptWindow(true)
		e := g.want(ExitIRQWindowOpen)
		if !e.ReadyForInterrupt() || !e.InterruptsEnabled() {
			t.Fatalf("ready %v, interrupts enabled %v", e.ReadyForInterrupt(), e.InterruptsEnabled())
		}
		g.cpu.RequestInterruptWindow(false)
		g.check(g.cpu.Interrupt(v))
		g.wantVector(v)
	}
}

// TestIOEventFD shows which writes signal and which still exit.
func TestIOEventFD(t *testing.T) {
	const port = 0x50
	g := newGuest(t, false)
	matched, wide := eventfd(t), eventfd(t)
	byMatch := IOEventFD{
		Addr: port, Len: 1, FD: int32(matched), Datamatch: 7,
		Flags: IOEventFDPIO | IOEventFDDatamatch,
	}
	g.check(g.vm.IOEventFD(byMatch))
	g.check(g.vm.IOEventFD(IOEventFD{Addr: mmioAddr, Len: 4, FD: int32(wide)}))
	a := asm.New(asm.Long).Mov(asm.RBX, mmioAddr).Label("again").
		Mov(asm.EAX, 7).Out(port, asm.AL). // matches
		Mov(asm.EAX, 8).Out(port, asm.AL). // another value: exits
		Mov(asm.EAX, 7).Out(port, asm.AX). // another width: exits
		Store(asm.At(asm.RBX), asm.EAX).   // any value: signals
		Store(asm.At(asm.RBX), asm.AX).    // another width: exits
		Jmp("again")
	g.long(a)
	for range 3 {
		if got := g.wantOut(port); got != 8 {
			t.Errorf("port write of %d exits, want 8", got)
		}
		if io := g.wantIO(port, true); io.Size != 2 {
			t.Errorf("%+v exits, want size 2", io)
		}
		g.wantMMIO(mmioCase{true, 2, mmioAddr, 7})
		if a, b := drain(t, matched), drain(t, wide); a != 1 || b != 1 {
			t.Errorf("eventfds count %d and %d, want 1 and 1", a, b)
		}
	}
	byMatch.Flags |= IOEventFDDeassign
	g.check(g.vm.IOEventFD(byMatch))
	if got := g.wantOut(port); got != 7 {
		t.Errorf("port write of %d exits after removal, want 7", got)
	}
	if err := g.vm.IOEventFD(byMatch); err == nil {
		t.Error("removing it twice works")
	}
	if err := g.vm.IOEventFD(IOEventFD{Addr: port, Len: 3, FD: int32(matched)}); err == nil {
		t.Error("a length of 3 was taken")
	}
}

// TestIOEventFDAnyLength has one eventfd for writes of every width.
func TestIOEventFDAnyLength(t *testing.T) {
	g := newGuest(t, false)
	if n, err := g.vm.CheckExtension(CapIOEventFDAnyLength); err != nil || n == 0 {
		t.Logf("no such ioeventfds here: %d, %v", n, err)
		return
	}
	fd := eventfd(t)
	g.check(g.vm.IOEventFD(IOEventFD{Addr: mmioAddr, FD: int32(fd)}))
	g.long(asm.New(asm.Long).Mov(asm.RBX, mmioAddr).
		Store(asm.At(asm.RBX), asm.AL).Store(asm.At(asm.RBX), asm.AX).
		Store(asm.At(asm.RBX), asm.EAX).Store(asm.At(asm.RBX), asm.RAX).Hlt())
	g.want(ExitHLT)
	if n := drain(t, fd); n != 4 {
		t.Errorf("eventfd counts %d, want 4", n)
	}
}
