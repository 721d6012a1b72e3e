package kvm

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hutchvm/hutch/kvm/internal/asm"
)

// Model-specific registers of the tests (Intel SDM volume 4).
const (
	msrTSC         = 0x10
	msrSysenterEIP = 0x176
	msrTSCDeadline = 0x6e0
	// Counters of Hyper-V's interface (TLFS, appendix D).
	msrHyperVRuntime  = 0x4000_0010
	msrHyperVRefCount = 0x4000_0020
	msrLSTAR          = 0xc0000082
	msrKernelGSBase   = 0xc0000102
	msrNone           = 0x7fff_fff0 // assigned to nothing
)

// vcpuState is all of a vCPU that a snapshot holds.
type vcpuState struct {
	CPUID  []CPUIDEntry
	MP     MPState
	Regs   Regs
	SRegs  SRegs
	XSave  []byte
	XCRs   XCRs
	Debug  DebugRegs
	LAPIC  LAPIC
	MSRs   []MSREntry
	Events VCPUEvents
	// FPU and TSCKHz are not restored from here but compared.
	FPU    FPU
	TSCKHz int
}

// save reads the state of a vCPU in the order that the kernel wants: MP state first, events last.
func (g *guest) save() vcpuState {
	g.tb.Helper()
	var s vcpuState
	var err error
	c := g.cpu
	s.MP, err = c.MPState()
	g.check(err)
	s.CPUID, err = c.CPUID()
	g.check(err)
	s.Regs, err = c.Regs()
	g.check(err)
	s.SRegs, err = c.SRegs()
	g.check(err)
	s.XSave, err = c.XSave()
	g.check(err)
	s.FPU, err = c.FPU()
	g.check(err)
	s.XCRs, err = c.XCRs()
	g.check(err)
	s.Debug, err = c.DebugRegs()
	g.check(err)
	s.LAPIC, err = c.LAPIC()
	g.check(err)
	s.MSRs = g.readableMSRs()
	s.TSCKHz, err = c.TSCKHz()
	g.check(err)
	s.Events, err = c.VCPUEvents()
	g.check(err)
	return s
}

// readableMSRs reads what the host lists, less what it refuses for this guest.
func (g *guest) readableMSRs() []MSREntry {
	g.tb.Helper()
	list, err := g.sys.MSRIndexList()
	g.check(err)
	var out []MSREntry
	for len(list) > 0 {
		got, err := g.cpu.MSRs(list)
		out = append(out, got...)
		var refused *MSRError
		if !errors.As(err, &refused) {
			g.check(err)
			break
		}
		list = list[refused.Handled+1:]
	}
	return out
}

// restore sets the state of a fresh vCPU, in the order that the kernel wants.
func (g *guest) restore(s vcpuState) {
	g.tb.Helper()
	c := g.cpu
	g.check(c.SetCPUID(s.CPUID))
	g.check(c.SetMPState(s.MP))
	g.check(c.SetRegs(s.Regs))
	g.check(c.SetSRegs(s.SRegs))
	g.check(c.SetXSave(s.XSave))
	g.check(c.SetXCRs(s.XCRs))
	g.check(c.SetDebugRegs(s.Debug))
	g.check(c.SetLAPIC(s.LAPIC))
	g.check(c.SetMSRs(s.MSRs))
	g.check(c.SetVCPUEvents(s.Events))
}

// TestSaveRestore moves a guest in mid-computation to a fresh machine.
func TestSaveRestore(t *testing.T) {
	code := asm.New(asm.Long).
		Mov(asm.RBX, 0x1111).Mov(asm.RCX, 0x2222).Mov(asm.RDX, 0x3333_0000_0000).
		Out(0x10, asm.AL). // the machine changes here
		MovReg(asm.RAX, asm.RBX).Add(asm.RAX, asm.RCX).Add(asm.RAX, asm.RDX).
		Mov(asm.RDI, dataAddr).Store(asm.At(asm.RDI), asm.RAX).Out(0x11, asm.EAX).
		Mov(asm.ECX, msrKernelGSBase).Rdmsr().Out(0x12, asm.EAX).
		Hlt()
	a := newGuest(t, true)
	a.long(code)
	a.wantOut(0x10)
	a.finish()

	// Give every part a value of its own.
	a.check(a.cpu.SetMSRs([]MSREntry{{msrKernelGSBase, 0xffff_8000_1234_5678}, {msrLSTAR, 0xffff_ffff_8100_0000}}))
	dr, err := a.cpu.DebugRegs()
	a.check(err)
	dr.DB = [4]uint64{0x1000, 0x2000, 0x3000, 0x4000}
	a.check(a.cpu.SetDebugRegs(dr))
	xmm5 := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	a.setXMM(5, xmm5)
	a.enableLAPIC()
	saved := a.save()
	if saved.FPU.XMM[5] != xmm5 {
		t.Errorf("xmm5 is %x", saved.FPU.XMM[5])
	}

	b := newGuest(t, true)
	copy(b.mem, a.mem)
	b.restore(saved)
	again := b.save()
	opts := cmp.Options{
		cmpopts.IgnoreSliceElements(func(e MSREntry) bool {
			return slices.Contains([]uint32{msrTSC, msrTSCDeadline, msrHyperVRuntime, msrHyperVRefCount}, e.Index)
		}),
		cmp.Comparer(func(x, y LAPIC) bool { return stableLAPIC(x) == stableLAPIC(y) }),
		exportedOnly(),
	}
	if diff := cmp.Diff(saved, again, opts); diff != "" {
		t.Errorf("state after restoring differs (-saved +restored):\n%s", diff)
	}

	if got, want := b.wantOut(0x11), uint64(0x3333); got != want {
		t.Errorf("restored guest computes %#x, want %#x", got, want)
	}
	if got, want := binary.LittleEndian.Uint64(b.mem[dataAddr:]), uint64(0x3333_0000_3333); got != want {
		t.Errorf("restored guest stores %#x, want %#x", got, want)
	}
	if got, want := b.wantOut(0x12), uint64(0x1234_5678); got != want {
		t.Errorf("restored guest reads the register as %#x, want %#x", got, want)
	}
}

// setXMM sets an SSE register through the XSAVE area (Intel SDM volume 1, 13.4).
func (g *guest) setXMM(n int, v [16]byte) {
	g.tb.Helper()
	const (
		mxcsr, xmm, xstateBV = 24, 160, 512
		x87, sse             = 1 << 0, 1 << 1
	)
	state, err := g.cpu.XSave()
	g.check(err)
	copy(state[xmm+16*n:], v[:])
	binary.LittleEndian.PutUint32(state[mxcsr:], 0x1fc0)
	bv := binary.LittleEndian.Uint64(state[xstateBV:])
	binary.LittleEndian.PutUint64(state[xstateBV:], bv|x87|sse)
	g.check(g.cpu.SetXSave(state))
}

// exportedOnly makes cmp pass over padding.
func exportedOnly() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && f.Name() == "_"
	}, cmp.Ignore())
}

// stableLAPIC clears the timer's current count.
func stableLAPIC(l LAPIC) LAPIC {
	l.SetRegister(0x390, 0)
	return l
}

// TestChipState moves the state of interrupt controllers and timer between machines.
func TestChipState(t *testing.T) {
	a, b := newGuest(t, true), newGuest(t, true)
	for _, g := range []*guest{a, b} {
		g.check(g.vm.CreatePIT2(PITConfig{Flags: PITSpeakerDummy}))
		g.check(g.vm.SetPITReinject(false))
	}
	for _, id := range []ChipID{PICMaster, PICSlave} {
		s, err := a.vm.PIC(id)
		a.check(err)
		s.IMR, s.IRQBase = 0xa5, 0x20+8*uint8(id)
		a.check(a.vm.SetPIC(id, s))
		b.check(b.vm.SetPIC(id, s))
		got, err := b.vm.PIC(id)
		b.check(err)
		if got != s {
			t.Errorf("PIC %d: %+v, want %+v", id, got, s)
		}
	}
	io, err := a.vm.IOAPIC()
	a.check(err)
	if io.BaseAddress != 0xfec00000 {
		t.Errorf("IOAPIC at %#x", io.BaseAddress)
	}
	io.RedirTable[5] = 0x0100_0000_0001_0055 // masked, vector 0x55, destination 1
	b.check(b.vm.SetIOAPIC(io))
	gotIO, err := b.vm.IOAPIC()
	b.check(err)
	if diff := cmp.Diff(io, gotIO, exportedOnly()); diff != "" {
		t.Errorf("IOAPIC (-want +got):\n%s", diff)
	}
	pit, err := a.vm.PIT2()
	a.check(err)
	pit.Channels[2].Count, pit.Channels[2].Mode = 0x1234, 3
	b.check(b.vm.SetPIT2(pit))
	gotPIT, err := b.vm.PIT2()
	b.check(err)
	if c := gotPIT.Channels[2]; c.Count != 0x1234 || c.Mode != 3 {
		t.Errorf("timer channel 2: %+v", c)
	}
}

// TestCPUID shows a leaf of the host's choice to a guest.
func TestCPUID(t *testing.T) {
	g := newGuest(t, false)
	entries, err := g.sys.SupportedCPUID()
	g.check(err)
	const leaf = 0x4000_0000
	entries = slices.DeleteFunc(entries, func(e CPUIDEntry) bool { return e.Function == leaf })
	entries = append(entries, CPUIDEntry{Function: leaf, EAX: leaf, EBX: 0x63747548, ECX: 0x68, EDX: 0x12345678})
	g.check(g.cpu.SetCPUID(entries))
	got, err := g.cpu.CPUID()
	g.check(err)
	if !slices.ContainsFunc(got, func(e CPUIDEntry) bool { return e.Function == leaf && e.EBX == 0x63747548 }) {
		t.Error("the leaf is not in the table that was set")
	}
	g.real(asm.New(asm.Real).Mov(asm.EAX, leaf).CPUID().
		Out(0x10, asm.EAX).MovReg(asm.EAX, asm.EBX).Out(0x11, asm.EAX).
		MovReg(asm.EAX, asm.ECX).Out(0x12, asm.EAX).MovReg(asm.EAX, asm.EDX).Out(0x13, asm.EAX).Hlt())
	for i, want := range []uint64{leaf, 0x63747548, 0x68, 0x12345678} {
		if got := g.wantOut(0x10 + uint16(i)); got != want {
			t.Errorf("register %d is %#x, want %#x", i, got, want)
		}
	}
}

// TestMSRs passes registers both ways between guest and host.
func TestMSRs(t *testing.T) {
	g := newGuest(t, false)
	g.long(asm.New(asm.Long).
		Mov(asm.ECX, msrKernelGSBase).Mov(asm.EAX, 0x55667788).Mov(asm.EDX, 0x11223344&0x7fff).Wrmsr().
		Out(0x10, asm.AL).
		Mov(asm.ECX, msrSysenterEIP).Rdmsr().Out(0x11, asm.EAX).Hlt())
	g.check(g.cpu.SetMSRs([]MSREntry{{msrSysenterEIP, 0xcafe0001}}))
	g.wantOut(0x10)
	got, err := g.cpu.MSRs([]uint32{msrKernelGSBase, msrSysenterEIP})
	g.check(err)
	want := []MSREntry{{msrKernelGSBase, 0x3344_5566_7788}, {msrSysenterEIP, 0xcafe0001}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("registers (-want +got):\n%s", diff)
	}
	if got := g.wantOut(0x11); got != 0xcafe0001 {
		t.Errorf("guest reads %#x, want 0xcafe0001", got)
	}
}

// TestMSRRefused shows how much of a list was handled, across the batches that it is cut into.
func TestMSRRefused(t *testing.T) {
	g := newGuest(t, false)
	for _, at := range []int{0, 1, msrBatch - 1, msrBatch, 2*msrBatch + 3} {
		entries := make([]MSREntry, 2*msrBatch+5)
		indices := make([]uint32, len(entries))
		for i := range entries {
			entries[i] = MSREntry{msrSysenterEIP, uint64(i)}
			indices[i] = msrSysenterEIP
		}
		entries[at].Index, indices[at] = msrNone, msrNone
		want := MSRError{Index: msrNone, Handled: at, Total: len(entries)}

		var refused *MSRError
		if err := g.cpu.SetMSRs(entries); !errors.As(err, &refused) || *refused != want {
			t.Errorf("SetMSRs: %v, want %v", err, &want)
		}
		got, err := g.cpu.MSRs(indices)
		if !errors.As(err, &refused) || *refused != want || len(got) != at {
			t.Errorf("MSRs: %d entries, %v, want %d, %v", len(got), err, at, &want)
		}
		for _, e := range got {
			if e != (MSREntry{msrSysenterEIP, uint64(at - 1)}) {
				t.Fatalf("register is %+v, want the last value written before the refusal, %d", e, at-1)
			}
		}
	}
	if got, err := g.cpu.MSRs(nil); err != nil || len(got) != 0 {
		t.Errorf("no registers: %v, %v", got, err)
	}
}

// TestMSRExit hands a guest's access to an unknown register to the host.
func TestMSRExit(t *testing.T) {
	const unknown = 1 << 1 // KVM_MSR_EXIT_REASON_UNKNOWN
	g := newGuest(t, false)
	if n, err := g.vm.CheckExtension(CapX86UserSpaceMSR); err != nil || n == 0 {
		t.Logf("no such exits here: %d, %v", n, err)
		return
	}
	g.check(g.vm.EnableCap(CapX86UserSpaceMSR, unknown))
	g.real(asm.New(asm.Real).Mov(asm.ECX, msrNone).
		Rdmsr().Out(0x10, asm.EAX).Inc(asm.EAX).Wrmsr().Hlt())
	m, err := g.want(ExitRDMSR).MSR()
	g.check(err)
	if m.Index != msrNone || m.Write || m.Why != unknown {
		t.Errorf("%+v", m)
	}
	m.Reply(0x1234_5678, false)
	if got := g.wantOut(0x10); got != 0x1234_5678 {
		t.Errorf("guest reads %#x", got)
	}
	m, err = g.want(ExitWRMSR).MSR()
	g.check(err)
	if m.Index != msrNone || !m.Write || m.Value != 0x1234_5679 {
		t.Errorf("%+v", m)
	}
	m.Reply(0, false)
	g.want(ExitHLT)
}
