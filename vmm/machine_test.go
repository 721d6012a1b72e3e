package vmm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/vmm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Guests of a few instructions, in 64-bit code.
var (
	busyLoop = []byte{0xeb, 0xfe}             // jmp .
	hltLoop  = []byte{0xfa, 0xf4, 0xeb, 0xfd} // cli; hlt; jmp
	exitLoop = outb(0x3f8, 'A', 0xeb, 0xfd)   // out dx, al; jmp to the out
	powerOff = outb(vmm.ControlPort, vmm.PowerOffMark, hltLoop...)
	reboot   = outb(0x64, 0xfe, hltLoop...)
	badOp    = []byte{0x0f, 0x0b} // ud2, and no interrupt table
)

const (
	codeAddr    = 0x1000000
	defaultSize = 128 << 20
)

// outb is mov edx, port; mov al, value; out dx, al; and then more.
func outb(port uint16, value byte, more ...byte) []byte {
	return append([]byte{0xba, byte(port), byte(port >> 8), 0, 0, 0xb0, value, 0xee}, more...)
}

// irqLoop sends itself interrupts as fast as it can.
func irqLoop() []byte {
	const handler, idtr, idt, vector = 0x100, 0x200, 0x800, 0x40
	code := make([]byte, 0x1000)
	copy(code, []byte{
		0x0f, 0x01, 0x1c, 0x25, 0x00, 0x02, 0x00, 0x01, // lidt [codeAddr+idtr]
		0xbb, 0x00, 0x00, 0xe0, 0xfe, // mov ebx, local APIC
		0xc7, 0x83, 0xf0, 0, 0, 0, 0xff, 0x01, 0, 0, // mov dword [rbx+0xf0], 0x1ff: enable
		0xfb,                                             // sti
		0xc7, 0x83, 0x00, 0x03, 0, 0, vector, 0, 0x04, 0, // mov dword [rbx+0x300], self | vector
		0xeb, 0xf4, // jmp to the mov
	})
	copy(code[handler:], []byte{
		0xc7, 0x83, 0xb0, 0, 0, 0, 0, 0, 0, 0, // mov dword [rbx+0xb0], 0: end of interrupt
		0x48, 0xcf, // iretq
	})
	le := binary.LittleEndian
	le.PutUint16(code[idtr:], 0x7ff)
	le.PutUint64(code[idtr+2:], codeAddr+idt)
	gate := code[idt+vector*16:]
	target := uint64(codeAddr + handler)
	le.PutUint16(gate, uint16(target))
	le.PutUint16(gate[2:], 0x10) // the boot protocol's code segment
	le.PutUint16(gate[4:], 0x8e00)
	le.PutUint16(gate[6:], uint16(target>>16))
	return code
}

// snippet makes a configuration that runs code.
func snippet(t testing.TB, code []byte) vmm.Config {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "code"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(append(code, make([]byte, 4096-len(code))...)); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{
		CPUs: 1, Memory: defaultSize,
		Kernel: vmm.KernelSource{Flat: &boot.Flat{File: f, Base: codeAddr, Size: 4096, Span: 4096, Entry: codeAddr}},
	}
}

func newMachine(t testing.TB, cfg vmm.Config) *vmm.Machine {
	t.Helper()
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return m
}

func start(t testing.TB, ctx context.Context, m *vmm.Machine) {
	t.Helper()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// wait fails the test when m has not stopped within a bound that is generous
// even for an emulated host.
func wait(t testing.TB, m *vmm.Machine) vmm.Exit {
	t.Helper()
	select {
	case <-m.Done():
		return m.Exit()
	case <-time.After(time.Minute):
		t.Fatal("the machine did not stop")
		panic("unreachable")
	}
}

func TestExitReasons(t *testing.T) {
	kvmtest.RequireLinux(t)
	for _, tt := range []struct {
		name string
		code []byte
		want vmm.Reason
	}{
		{"power off", powerOff, vmm.PowerOff},
		{"reboot", reboot, vmm.GuestReboot},
		{"triple fault", badOp, vmm.TripleFault},
		{"halt", hltLoop, vmm.Halted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, snippet(t, tt.code))
			if got := m.State(); got != vmm.Created {
				t.Errorf("state before Start is %v", got)
			}
			start(t, t.Context(), m)
			if got := wait(t, m); got.Reason != tt.want {
				t.Errorf("exit is %v, want %v", got, tt.want)
			}
			if got := m.State(); got != vmm.Stopped {
				t.Errorf("state at the end is %v", got)
			}
		})
	}
}

// TestCancelStopsAnyGuest measures how long a guest lives on after its context.
func TestCancelStopsAnyGuest(t *testing.T) {
	kvmtest.RequireLinux(t)
	for name, code := range map[string][]byte{"hlt": hltLoop, "busy": busyLoop, "exits": exitLoop, "interrupts": irqLoop()} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, snippet(t, code))
			ctx, cancel := context.WithCancel(t.Context())
			start(t, ctx, m)
			time.Sleep(50 * time.Millisecond) // let it get going
			if got := m.State(); got != vmm.Running {
				t.Fatalf("state is %v (%v)", got, m.Exit())
			}
			begin := time.Now()
			cancel()
			if got := wait(t, m); got.Reason != vmm.Killed {
				t.Errorf("exit is %v, want killed", got)
			}
			took := time.Since(begin)
			t.Logf("stopped after %v", took)
			// 100 ms is the promise on hardware.
			if took > time.Second {
				t.Errorf("took %v to stop", took)
			}
		})
	}
}

func TestPanicIsSeen(t *testing.T) {
	kvmtest.RequireLinux(t)
	img, err := kernel.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var console strings.Builder
	m := newMachine(t, vmm.Config{
		CPUs: 1, Memory: defaultSize,
		Kernel: vmm.KernelSource{Flat: &boot.Flat{
			File: img.File, Base: img.Base, Size: uint64(img.Size), Span: img.MemSize, Entry: img.Entry,
		}},
		CmdLine: "reboot=k panic=-1 console=hvc0 quiet",
		Console: vmm.Console{Out: &console},
	})
	start(t, t.Context(), m)
	got := wait(t, m)
	if got.Reason != vmm.Panic || !strings.Contains(got.Detail, "Unable to mount root fs") {
		t.Errorf("exit is %v, want a panic for want of a root file system", got)
	}
	m.Close() // ends the console's writer
	if !strings.Contains(console.String(), got.Detail) {
		t.Errorf("console does not show %q:\n%s", got.Detail, console.String())
	}
}

func TestKernelELFAndErrors(t *testing.T) {
	kvmtest.RequireLinux(t)
	elf, err := kernel.ELF()
	if err != nil {
		t.Fatal(err)
	}
	cfg := func(b string) vmm.Config {
		return vmm.Config{CPUs: 1, Memory: defaultSize, CmdLine: "reboot=k panic=-1 console=hvc0 quiet",
			Kernel: vmm.KernelSource{Reader: strings.NewReader(b), Size: int64(len(b))}}
	}
	m := newMachine(t, cfg(string(elf)))
	start(t, t.Context(), m)
	if got := wait(t, m); got.Reason != vmm.Panic {
		t.Errorf("exit of the ELF kernel is %v, want a panic for want of a root file system", got)
	}
	for name, tt := range map[string]struct {
		kernel string
		want   error
	}{
		"truncated": {string(elf[:len(elf)/2]), boot.ErrTruncated},
		"no kernel": {strings.Repeat("x", 4096), boot.ErrNotKernel},
		"empty":     {"", boot.ErrTruncated},
	} {
		if _, err := vmm.New(cfg(tt.kernel)); !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v, want %v", name, err, tt.want)
		}
	}
}
