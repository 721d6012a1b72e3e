package kvm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kvm/internal/asm"
)

func TestOpenErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]error{
		filepath.Join(t.TempDir(), "kvm"): {ErrNoDevice, syscall.ENOENT},
		os.DevNull:                        {ErrNoDevice},
		file:                              {ErrNoDevice},
		t.TempDir():                       {syscall.EISDIR},
	} {
		sys, err := Open(path)
		var op *OpError
		if sys != nil || !errors.As(err, &op) {
			t.Errorf("Open(%s) = %v, %v, want an OpError", path, sys, err)
		}
		for _, w := range want {
			if !errors.Is(err, w) {
				t.Errorf("Open(%s): %v, want %v", path, err, w)
			}
		}
	}
}

func TestSystem(t *testing.T) {
	g := newGuest(t, true)
	if v, err := g.sys.APIVersion(); err != nil || v != apiVersion {
		t.Errorf("API version %d, %v", v, err)
	}
	for _, c := range []Cap{CapUserMemory, CapIRQChip, CapIRQFD, CapIOEventFD, CapImmediateExit} {
		if n, err := g.sys.CheckExtension(c); err != nil || n == 0 {
			t.Errorf("capability %d: %d, %v", c, n, err)
		}
	}
	if n, err := g.vm.CheckExtension(1 << 20); err != nil || n != 0 {
		t.Errorf("a capability that is none: %d, %v", n, err)
	}
	msrs, err := g.sys.MSRIndexList()
	if err != nil || !slices.Contains(msrs, msrTSC) {
		t.Errorf("MSR list %#x, %v", msrs, err)
	}
	features, err := g.sys.MSRFeatureIndexList()
	g.check(err)
	if got, err := g.sys.FeatureMSRs(features); err != nil || len(got) != len(features) {
		t.Errorf("feature MSRs: %d of %d, %v", len(got), len(features), err)
	}
	cpuid, err := g.sys.SupportedCPUID()
	if err != nil || len(cpuid) == 0 || !slices.ContainsFunc(cpuid, func(e CPUIDEntry) bool { return e.Function == 0 && e.EBX != 0 }) {
		t.Errorf("%d CPUID entries, %v", len(cpuid), err)
	}
}

func TestVMSettings(t *testing.T) {
	g := newGuest(t, true)
	g.real(asm.New(asm.Real).Hlt())
	const hour = 3600e9
	g.check(g.vm.SetClock(ClockData{Clock: hour}))
	c, err := g.vm.Clock()
	g.check(err)
	if c.Clock < hour || c.Clock > 2*hour {
		t.Errorf("clock is %d ns, want a little over %d", c.Clock, uint64(hour))
	}
	khz, err := g.cpu.TSCKHz()
	if err != nil || khz < 100_000 || khz > 100_000_000 {
		t.Errorf("TSC of %d kHz, %v", khz, err)
	}
	g.check(g.cpu.SetTSCKHz(khz))
	if s, err := g.cpu.MPState(); err != nil || s != MPStateRunnable {
		t.Errorf("MP state %d, %v", s, err)
	}
	g.check(g.cpu.SetMPState(MPStateHalted))
	if s, err := g.cpu.MPState(); err != nil || s != MPStateHalted {
		t.Errorf("MP state %d, %v, want halted", s, err)
	}
	// No guest has turned kvmclock on.
	if err := g.cpu.KVMClockCtrl(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("KVMClockCtrl: %v, want EINVAL", err)
	}
	g.check(g.vm.EnableCap(CapX2APICAPI, X2APICUse32BitIDs|X2APICDisableBroadcastQuirk))
	if err := g.vm.EnableCap(1 << 20); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("enabling a capability that is none: %v, want EINVAL", err)
	}
	if err := g.cpu.EnableCap(1 << 20); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("enabling a vCPU capability that is none: %v, want EINVAL", err)
	}
}

// TestBeforeVCPUs makes the settings that must precede the first vCPU.
func TestBeforeVCPUs(t *testing.T) {
	kvmtest.Require(t)
	sys, err := Open(kvmtest.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	for name, err := range map[string]error{
		"SetIdentityMapAddr": vm.SetIdentityMapAddr(0xfeffc000),
		"SetTSSAddr":         vm.SetTSSAddr(0xfeffd000),
		"SetBootCPUID":       vm.SetBootCPUID(1),
		"split irqchip":      vm.EnableCap(CapSplitIRQChip, IOAPICPins),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	cpu, err := vm.CreateVCPU(1)
	if err != nil {
		t.Fatal(err)
	}
	defer cpu.Close()
	if cpu.ID() != 1 {
		t.Errorf("ID %d, want 1", cpu.ID())
	}
	if s, err := cpu.MPState(); err != nil || s != MPStateRunnable {
		t.Errorf("the boot vCPU's state is %d, %v", s, err)
	}
	if _, err := vm.CreateVCPU(1); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a second vCPU 1: %v, want EEXIST", err)
	}
}

func TestTranslate(t *testing.T) {
	g := newGuest(t, false)
	g.long(asm.New(asm.Long).Hlt())
	if phys, ok, err := g.cpu.Translate(0x12_3456); err != nil || !ok || phys != 0x12_3456 {
		t.Errorf("mapped address: %#x, %v, %v", phys, ok, err)
	}
	if _, ok, err := g.cpu.Translate(1 << 40); err != nil || ok {
		t.Errorf("unmapped address: %v, %v", ok, err)
	}
}

func TestSRegs2(t *testing.T) {
	g := newGuest(t, false)
	if n, err := g.vm.CheckExtension(CapSRegs2); err != nil || n == 0 {
		t.Logf("no KVM_CAP_SREGS2 here: %d, %v", n, err)
		return
	}
	g.long(asm.New(asm.Long).Out(0x10, asm.AL).Hlt())
	s, err := g.cpu.SRegs2()
	g.check(err)
	if s.CR3 != pageTables || s.CS.L != 1 || s.Flags&SRegs2PDPTRsValid != 0 {
		t.Errorf("%+v", s)
	}
	g.check(g.cpu.SetSRegs2(s))
	g.wantOut(0x10)
}

func TestXSaveSizes(t *testing.T) {
	g := newGuest(t, false)
	state, err := g.cpu.XSave()
	g.check(err)
	if len(state) < xsaveMin {
		t.Fatalf("%d bytes of state", len(state))
	}
	g.check(g.cpu.SetXSave(append(slices.Clone(state), 0, 0, 0)))
	g.check(g.cpu.SetXSave(state[:1024])) // the rest is zero in a fresh vCPU
	if err := g.cpu.SetXSave(append(slices.Clone(state), 0, 1)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("surplus state: %v, want EINVAL", err)
	}
}

func TestFPU(t *testing.T) {
	g := newGuest(t, false)
	f, err := g.cpu.FPU()
	g.check(err)
	f.FCW, f.XMM[3], f.FPR[1] = 0x27f, [16]byte{3, 2, 1}, [16]byte{7, 8, 9}
	g.check(g.cpu.SetFPU(f))
	got, err := g.cpu.FPU()
	g.check(err)
	if got.FCW != f.FCW || got.XMM != f.XMM || got.FPR != f.FPR {
		t.Errorf("%+v, want %+v", got, f)
	}
}

func TestVMTSCFrequency(t *testing.T) {
	g := newGuest(t, false)
	if n, err := g.vm.CheckExtension(CapVMTSCControl); err != nil || n == 0 {
		t.Logf("no KVM_CAP_VM_TSC_CONTROL here: %d, %v", n, err)
		return
	}
	khz, err := g.vm.TSCKHz()
	g.check(err)
	g.check(g.vm.SetTSCKHz(khz))
}

func TestClosed(t *testing.T) {
	g := newGuest(t, true)
	for range 2 {
		g.check(g.cpu.Close())
		g.check(g.vm.Close())
		g.check(g.sys.Close())
	}
	g.cpu.RequestInterruptWindow(true)
	g.check(g.cpu.Kick())
	_, runErr := g.cpu.Run()
	_, regsErr := g.cpu.Regs()
	_, vcpuErr := g.vm.CreateVCPU(1)
	_, vmErr := g.sys.CreateVM()
	_, xsaveErr := g.cpu.XSave()
	for name, err := range map[string]error{
		"Run": runErr, "Regs": regsErr, "SetRegs": g.cpu.SetRegs(Regs{}), "CreateVCPU": vcpuErr,
		"CreateVM": vmErr, "XSave": xsaveErr, "IRQLine": g.vm.IRQLine(1, true),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
}

// TestDescriptors makes and closes many machines and counts open files.
func TestDescriptors(t *testing.T) {
	kvmtest.Require(t)
	sys, err := Open(kvmtest.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	before := count()
	mapped := strings.Count(readMaps(t), "kvm-vcpu")
	for range 200 {
		vm, err := sys.CreateVM()
		if err != nil {
			t.Fatal(err)
		}
		cpu, err := vm.CreateVCPU(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(vm.Close(), cpu.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
	if after := strings.Count(readMaps(t), "kvm-vcpu"); after != mapped {
		t.Errorf("%d exit areas mapped, %d before", after, mapped)
	}
}

func readMaps(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
