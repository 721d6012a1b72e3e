package kvm

import (
	"errors"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/kvm/internal/asm"
)

func TestPortOut(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).
		Mov(asm.EAX, 0x12345678).Mov(asm.DX, 0x3f8).
		Out(0x10, asm.AL).Out(0x11, asm.AX).Out(0x12, asm.EAX).
		OutDX(asm.AL).OutDX(asm.AX).OutDX(asm.EAX).Hlt())
	tests := []struct {
		port uint16
		size int
		want uint64
	}{
		{0x10, 1, 0x78}, {0x11, 2, 0x5678}, {0x12, 4, 0x12345678},
		{0x3f8, 1, 0x78}, {0x3f8, 2, 0x5678}, {0x3f8, 4, 0x12345678},
	}
	for _, tt := range tests {
		io := g.wantIO(tt.port, true)
		if io.Size != tt.size || io.Count != 1 || number(io.Data) != tt.want {
			t.Errorf("%+v, want size %d value %#x", io, tt.size, tt.want)
		}
	}
	g.want(ExitHLT)
}

func TestPortIn(t *testing.T) {
	g := newGuest(t, false)
	// Each IN must replace only its own width of EAX, and the OUT shows all of it.
	g.real(asm.New(asm.Real).Mov(asm.EAX, 0xffffffff).
		In(asm.AL, 0x20).Out(0x10, asm.EAX).
		In(asm.AX, 0x21).Out(0x10, asm.EAX).
		In(asm.EAX, 0x22).Out(0x10, asm.EAX).Hlt())
	tests := []struct {
		port uint16
		size int
		want uint64
	}{{0x20, 1, 0xffffff11}, {0x21, 2, 0xffff2211}, {0x22, 4, 0x44332211}}
	for _, tt := range tests {
		io := g.wantIO(tt.port, false)
		if io.Size != tt.size || len(io.Data) != tt.size || cap(io.Data) != tt.size {
			t.Fatalf("%+v, want size %d", io, tt.size)
		}
		copy(io.Data, []byte{0x11, 0x22, 0x33, 0x44})
		if got := g.wantOut(0x10); got != tt.want {
			t.Errorf("after IN of %d bytes: eax = %#x, want %#x", tt.size, got, tt.want)
		}
	}
	g.want(ExitHLT)
}

func TestStringIO(t *testing.T) {
	const text = "forty-two bytes, more or less, of a string"
	for _, width := range []int{8, 16, 32} {
		g := newGuest(t, false)
		count := uint64(len(text) * 8 / width)
		g.real(asm.New(asm.Real).
			Mov(asm.DX, 0x40).Mov(asm.SI, dataAddr).Mov(asm.CX, count).RepOuts(width).
			Mov(asm.DX, 0x41).Mov(asm.DI, dataAddr).Mov(asm.CX, count).RepIns(width).
			Out(0x10, asm.AL).Hlt())
		copy(g.mem[dataAddr:], text)
		size := int(count) * width / 8
		var out strings.Builder
		for out.Len() < size {
			io := g.wantIO(0x40, true)
			if io.Size != width/8 || len(io.Data) != io.Size*io.Count {
				t.Fatalf("%+v with %d bytes", io, len(io.Data))
			}
			out.Write(io.Data)
		}
		if got := out.String(); got != text[:size] {
			t.Errorf("width %d: guest wrote %q", width, got)
		}
		// The kernel may ask for more or less at once than is left; it takes what it needs.
		upper := strings.ToUpper(text[:size])
		for given := 0; ; {
			e := g.want(ExitIO)
			io, err := e.IO()
			g.check(err)
			if io.Port == 0x10 {
				break
			}
			given += copy(io.Data, upper[min(given, size):])
		}
		if got := string(g.mem[dataAddr:][:size]); got != upper {
			t.Errorf("width %d: guest read %q", width, got)
		}
		g.want(ExitHLT)
	}
}

// mmioCase is one access to an address that no slot backs.
type mmioCase struct {
	write bool
	size  int
	addr  uint64
	value uint64
}

// wantMMIO runs the guest to an access, answers a read and checks that it arrived.
func (g *guest) wantMMIO(c mmioCase) {
	g.tb.Helper()
	m, err := g.want(ExitMMIO).MMIO()
	g.check(err)
	if m.Addr != c.addr || m.Write != c.write || len(m.Data) != c.size || cap(m.Data) != c.size {
		g.tb.Fatalf("%+v, want %+v", m, c)
	}
	if c.write {
		if got := number(m.Data); got != c.value {
			g.tb.Errorf("guest wrote %#x to %#x, want %#x", got, c.addr, c.value)
		}
		return
	}
	for i := range m.Data {
		m.Data[i] = byte(c.value >> (8 * i))
	}
	g.finish()
	r, err := g.cpu.Regs()
	g.check(err)
	if got := r.RAX & (1<<(8*c.size) - 1); got != c.value {
		g.tb.Errorf("guest read %#x from %#x, want %#x", got, c.addr, c.value)
	}
}

func TestMMIOReal(t *testing.T) {
	g := newGuest(t, false)
	// The first MiB is memory except for a hole made by moving the slot's end.
	g.check(g.vm.SetMemoryRegion(MemoryRegion{}))
	r := g.region(0)
	r.Size = 0x80000
	g.check(g.vm.SetMemoryRegion(r))
	g.real(asm.New(asm.Real).
		Mov(asm.AX, 0x9000).MovSeg(asm.DS, asm.AX).Mov(asm.EAX, 0x99aabbcc).
		Store(asm.Abs(4), asm.AL).Store(asm.Abs(8), asm.AX).Store(asm.Abs(12), asm.EAX).
		Load(asm.AL, asm.Abs(4)).Load(asm.AX, asm.Abs(8)).Load(asm.EAX, asm.Abs(12)).Hlt())
	for _, c := range []mmioCase{
		{true, 1, 0x90004, 0xcc}, {true, 2, 0x90008, 0xbbcc}, {true, 4, 0x9000c, 0x99aabbcc},
		{false, 1, 0x90004, 0x5a}, {false, 2, 0x90008, 0x1234}, {false, 4, 0x9000c, 0xdeadbeef},
	} {
		g.wantMMIO(c)
	}
	g.want(ExitHLT)
}

func TestMMIOLong(t *testing.T) {
	g := newGuest(t, false)
	g.long(asm.New(asm.Long).
		Mov(asm.RBX, mmioAddr).Mov(asm.RAX, 0x1122334455667788).
		Store(asm.At(asm.RBX), asm.AL).Store(asm.At(asm.RBX), asm.AX).
		Store(asm.At(asm.RBX), asm.EAX).Store(asm.At(asm.RBX), asm.RAX).
		Load(asm.AL, asm.At(asm.RBX)).Load(asm.AX, asm.At(asm.RBX)).
		Load(asm.EAX, asm.At(asm.RBX)).Load(asm.RAX, asm.At(asm.RBX)).Hlt())
	for _, c := range []mmioCase{
		{true, 1, mmioAddr, 0x88}, {true, 2, mmioAddr, 0x7788},
		{true, 4, mmioAddr, 0x55667788}, {true, 8, mmioAddr, 0x1122334455667788},
		{false, 1, mmioAddr, 0x01}, {false, 2, mmioAddr, 0x0203},
		{false, 4, mmioAddr, 0x04050607}, {false, 8, mmioAddr, 0x08090a0b0c0d0e0f},
	} {
		g.wantMMIO(c)
	}
	g.want(ExitHLT)
}

// TestReadOnlyMemory shows that a guest reads a read-only slot, and that its write exits.
func TestReadOnlyMemory(t *testing.T) {
	g := newGuest(t, false)
	if n, err := g.vm.CheckExtension(CapReadOnlyMem); err != nil || n == 0 {
		t.Logf("no read-only slots here: %d, %v", n, err)
		return
	}
	r := g.region(0)
	r.Size = dataAddr
	g.check(g.vm.SetMemoryRegion(MemoryRegion{}))
	g.check(g.vm.SetMemoryRegion(r))
	g.check(g.vm.SetMemoryRegion(MemoryRegion{
		Slot: 1, Flags: MemReadOnly, GuestPhys: dataAddr, Size: PageSize, HostAddr: r.HostAddr + dataAddr,
	}))
	g.mem[dataAddr] = 0x42
	g.real(asm.New(asm.Real).Load(asm.AL, asm.Abs(dataAddr)).Out(0x10, asm.AL).
		Inc(asm.AL).Store(asm.Abs(dataAddr), asm.AL).Hlt())
	if got := g.wantOut(0x10); got != 0x42 {
		t.Errorf("guest read %#x, want 0x42", got)
	}
	g.wantMMIO(mmioCase{true, 1, dataAddr, 0x43})
	if g.mem[dataAddr] != 0x42 {
		t.Error("the write reached read-only memory")
	}
}

// TestShutdown has a guest fault with no interrupt table to handle it.
func TestShutdown(t *testing.T) {
	g := newGuest(t, false)
	g.long(asm.New(asm.Long).UD2().Hlt())
	s, err := g.cpu.SRegs()
	g.check(err)
	s.IDT = DTable{}
	g.check(g.cpu.SetSRegs(s))
	g.want(ExitShutdown)
}

// TestExitOfAnotherKind asks an exit for what it does not hold.
func TestExitOfAnotherKind(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).Hlt())
	e := g.want(ExitHLT)
	_, ioErr := e.IO()
	_, mmioErr := e.MMIO()
	_, internalErr := e.InternalError()
	_, eventErr := e.SystemEvent()
	_, msrErr := e.MSR()
	for _, err := range []error{ioErr, mmioErr, internalErr, eventErr, msrErr} {
		if !errors.Is(err, ErrExit) {
			t.Errorf("error %v, want ErrExit", err)
		}
	}
}

// TestDebugExit steps through a guest one instruction at a time.
func TestDebugExit(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).Nop().Inc(asm.AX).Nop().Hlt())
	g.check(g.cpu.SetGuestDebug(GuestDebug{Control: GuestDebugEnable | GuestDebugSingleStep}))
	for _, pc := range []uint64{codeAddr + 1, codeAddr + 3, codeAddr + 4} {
		d, err := g.want(ExitDebug).Debug()
		g.check(err)
		if d.PC != pc || d.Exception != 1 {
			t.Errorf("stopped at %+v, want #DB at %#x", d, pc)
		}
	}
	g.check(g.cpu.SetGuestDebug(GuestDebug{}))
	g.want(ExitHLT)
}
