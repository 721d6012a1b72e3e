package kvm

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateLayout = flag.Bool("update", false, "write testdata/layout.golden from the C headers")

const layoutGolden = "testdata/layout.golden"

// layoutNumber is a C expression and the value that this package has for it.
type layoutNumber struct {
	expr  string
	value uint64
}

// layoutStruct pairs a Go type with a C structure. Fields are matched by lower-cased name,
// or as listed; "-" leaves one out.
type layoutStruct struct {
	c      string
	v      any
	fields map[string]string
}

func layoutStructs() []layoutStruct {
	sregs := map[string]string{"APICBase": "apic_base", "InterruptBitmap": "interrupt_bitmap"}
	return []layoutStruct{
		{"kvm_regs", Regs{}, nil},
		{"kvm_segment", Segment{}, nil},
		{"kvm_dtable", DTable{}, nil},
		{"kvm_sregs", SRegs{}, sregs},
		{"kvm_sregs2", SRegs2{}, sregs},
		{"kvm_fpu", FPU{}, map[string]string{"LastOpcode": "last_opcode", "LastIP": "last_ip", "LastDP": "last_dp"}},
		{"kvm_debugregs", DebugRegs{}, nil},
		{"kvm_xcr", XCR{}, nil},
		{"kvm_xcrs", XCRs{}, map[string]string{"N": "nr_xcrs"}},
		{"kvm_lapic_state", LAPIC{}, nil},
		{"kvm_vcpu_events", VCPUEvents{}, map[string]string{
			"SIPIVector": "sipi_vector", "TripleFaultPending": "triple_fault.pending",
			"ExceptionHasPayload": "exception_has_payload", "ExceptionPayload": "exception_payload",
			"HasErrorCode": "has_error_code", "ErrorCode": "error_code",
			"SMMInsideNMI": "smm_inside_nmi", "LatchedInit": "latched_init",
		}},
		{"kvm_cpuid_entry2", CPUIDEntry{}, nil},
		{"kvm_userspace_memory_region", MemoryRegion{}, map[string]string{
			"GuestPhys": "guest_phys_addr", "Size": "memory_size", "HostAddr": "userspace_addr",
		}},
		{"kvm_dirty_log", dirtyLog{}, map[string]string{"Bitmap": "dirty_bitmap"}},
		{"kvm_clear_dirty_log", clearDirtyLog{}, map[string]string{
			"NumPages": "num_pages", "FirstPage": "first_page", "Bitmap": "dirty_bitmap",
		}},
		{"kvm_irq_level", irqLevel{}, nil},
		{"kvm_irqfd", irqfd{}, nil},
		{"kvm_ioeventfd", IOEventFD{}, nil},
		{"kvm_msi", MSI{}, map[string]string{"AddressLo": "address_lo", "AddressHi": "address_hi"}},
		{"kvm_pic_state", PICState{}, map[string]string{
			"LastIRR": "last_irr", "PriorityAdd": "priority_add", "IRQBase": "irq_base",
			"ReadRegSelect": "read_reg_select", "SpecialMask": "special_mask", "InitState": "init_state",
			"AutoEOI": "auto_eoi", "RotateOnAutoEOI": "rotate_on_auto_eoi",
			"SpecialFullyNestedMod": "special_fully_nested_mode", "ELCRMask": "elcr_mask",
		}},
		{"kvm_ioapic_state", IOAPICState{}, map[string]string{"BaseAddress": "base_address", "RedirTable": "redirtbl"}},
		{"kvm_irqchip", picChip{}, map[string]string{"ID": "chip_id", "PIC": "chip.pic"}},
		{"kvm_irqchip", ioapicChip{}, map[string]string{"ID": "chip_id", "IOAPIC": "chip.ioapic"}},
		{"kvm_pit_config", PITConfig{}, nil},
		{"kvm_pit_channel_state", PITChannel{}, map[string]string{
			"LatchedCount": "latched_count", "CountLatched": "count_latched", "StatusLatched": "status_latched",
			"ReadState": "read_state", "WriteState": "write_state", "WriteLatch": "write_latch",
			"RWMode": "rw_mode", "CountLoadTime": "count_load_time",
		}},
		{"kvm_pit_state2", PITState{}, nil},
		{"kvm_reinject_control", reinjectControl{}, map[string]string{"PITReinject": "pit_reinject"}},
		{"kvm_clock_data", ClockData{}, map[string]string{"HostTSC": "host_tsc"}},
		{"kvm_enable_cap", enableCap{}, nil},
		{"kvm_guest_debug", GuestDebug{}, map[string]string{"DebugReg": "arch.debugreg"}},
		{"kvm_translation", translation{}, map[string]string{
			"LinearAddress": "linear_address", "PhysicalAddress": "physical_address",
		}},
	}
}

// layoutFields lists the sizes and offsets of a structure's fields, inner structures included.
func layoutFields(s layoutStruct) []layoutNumber {
	out := []layoutNumber{{"sizeof(struct " + s.c + ")", uint64(reflect.TypeOf(s.v).Size())}}
	var walk func(t reflect.Type, prefix string, base uintptr)
	walk = func(t reflect.Type, prefix string, base uintptr) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Name == "_" {
				continue
			}
			name := s.fields[f.Name]
			if name == "" {
				name = strings.ToLower(f.Name)
			}
			name = prefix + name
			out = append(out,
				layoutNumber{"offsetof(struct " + s.c + ", " + name + ")", uint64(base + f.Offset)},
				layoutNumber{"sizeof(((struct " + s.c + " *)0)->" + name + ")", uint64(f.Type.Size())})
			if f.Type.Kind() == reflect.Struct && f.Type.Name() == "" {
				walk(f.Type, name+".", base+f.Offset)
			}
		}
	}
	walk(reflect.TypeOf(s.v), "", 0)
	return out
}

// layoutNumbers lists all that this package takes from the kernel's headers.
func layoutNumbers() []layoutNumber {
	var out []layoutNumber
	for _, s := range layoutStructs() {
		out = append(out, layoutFields(s)...)
	}
	for _, r := range allRequests() {
		out = append(out, layoutNumber{r.String(), uint64(r)})
	}
	out = append(out, layoutCaps()...)
	out = append(out, layoutExits()...)
	return append(out, layoutConstants()...)
}

// goldenLayout reads the committed values.
func goldenLayout(t *testing.T) map[string]uint64 {
	t.Helper()
	text, err := os.ReadFile(layoutGolden)
	if err != nil {
		t.Fatal(err)
	}
	return parseLayout(t, text)
}

// parseLayout reads lines of "expression<tab>value".
func parseLayout(t *testing.T, text []byte) map[string]uint64 {
	t.Helper()
	m := make(map[string]uint64)
	for line := range strings.Lines(string(text)) {
		expr, value, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			t.Fatalf("line %q has no tab", line)
		}
		n, err := strconv.ParseUint(value, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		m[expr] = n
	}
	return m
}

// headerLayout has the C compiler evaluate the expressions. Macros that the installed header
// is too old for are left out. It returns nil without a compiler or header.
func headerLayout(t *testing.T, numbers []layoutNumber) []byte {
	t.Helper()
	if !supported {
		t.Log("the headers of another architecture: only the committed values are compared")
		return nil
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Log("no C compiler: only the committed values are compared")
		return nil
	}
	if _, err := os.Stat("/usr/include/linux/kvm.h"); err != nil {
		t.Log("no linux/kvm.h: only the committed values are compared")
		return nil
	}
	var src bytes.Buffer
	src.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/kvm.h>\nint main(void) {\n")
	for _, n := range numbers {
		macro := !strings.Contains(n.expr, "(")
		if macro {
			fmt.Fprintf(&src, "#ifdef %s\n", n.expr)
		}
		fmt.Fprintf(&src, "\tprintf(\"%%s\\t%%#llx\\n\", %q, (unsigned long long)(%s));\n", n.expr, n.expr)
		if macro {
			src.WriteString("#endif\n")
		}
	}
	src.WriteString("\treturn 0;\n}\n")

	dir := t.TempDir()
	file, prog := filepath.Join(dir, "layout.c"), filepath.Join(dir, "layout")
	if err := os.WriteFile(file, src.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-O0", "-o", prog, file).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cc, err, out)
	}
	out, err := exec.Command(prog).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLayout compares every size, offset and number with the values that the C compiler found
// in the kernel's headers, as committed.
func TestLayout(t *testing.T) {
	numbers := layoutNumbers()
	if *updateLayout {
		if out := headerLayout(t, numbers); out == nil {
			t.Fatal("-update needs cc and linux/kvm.h")
		} else if err := os.WriteFile(layoutGolden, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[string]uint64)
	for _, n := range numbers {
		if prev, ok := got[n.expr]; ok && prev != n.value {
			t.Errorf("%s is both %#x and %#x", n.expr, prev, n.value)
		}
		got[n.expr] = n.value
	}
	if diff := cmp.Diff(goldenLayout(t), got); diff != "" {
		t.Errorf("values differ from %s (-want +got):\n%s", layoutGolden, diff)
	}
}

// TestLayoutHeaders compares the committed values with the headers of this machine.
func TestLayoutHeaders(t *testing.T) {
	out := headerLayout(t, layoutNumbers())
	if out == nil {
		return
	}
	golden := goldenLayout(t)
	for expr, want := range parseLayout(t, out) {
		if got, ok := golden[expr]; !ok || got != want {
			t.Errorf("%s = %#x in linux/kvm.h, %#x in %s", expr, want, got, layoutGolden)
		}
	}
}
