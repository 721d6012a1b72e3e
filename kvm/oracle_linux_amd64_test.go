package kvm

import (
	"reflect"
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"github.com/google/go-cmp/cmp"
)

// leaf is a scalar inside a structure.
type leaf struct{ Offset, Size uintptr }

// leaves flattens a structure, padding excepted.
func leaves(t reflect.Type, base uintptr) []leaf {
	var out []leaf
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.Name != "_" && f.Name != "Padding" {
				out = append(out, leaves(f.Type, base+f.Offset)...)
			}
		}
	case reflect.Array:
		for i := range uintptr(t.Len()) {
			out = append(out, leaves(t.Elem(), base+i*t.Elem().Size())...)
		}
	default:
		out = append(out, leaf{base, t.Size()})
	}
	return out
}

// TestOracle compares structures and request numbers with those that another project wrote
// down independently.
func TestOracle(t *testing.T) {
	tests := []struct {
		name         string
		ours, theirs any
		requests     map[request]uintptr
	}{
		{"regs", Regs{}, gokvm.Regs{}, map[request]uintptr{
			reqGetRegs: gokvm.IIOR(0x81, reflect.TypeFor[gokvm.Regs]().Size()),
			reqSetRegs: gokvm.IIOW(0x82, reflect.TypeFor[gokvm.Regs]().Size()),
		}},
		{"sregs", SRegs{}, gokvm.Sregs{}, map[request]uintptr{
			reqGetSRegs: gokvm.IIOR(0x83, reflect.TypeFor[gokvm.Sregs]().Size()),
			reqSetSRegs: gokvm.IIOW(0x84, reflect.TypeFor[gokvm.Sregs]().Size()),
		}},
		{"sregs2", SRegs2{}, gokvm.SRegs2{}, map[request]uintptr{
			reqGetSRegs2: gokvm.IIOR(0xcc, reflect.TypeFor[gokvm.SRegs2]().Size()),
			reqSetSRegs2: gokvm.IIOW(0xcd, reflect.TypeFor[gokvm.SRegs2]().Size()),
		}},
		{"debug registers", DebugRegs{}, gokvm.DebugRegs{}, map[request]uintptr{
			reqGetDebugRegs: gokvm.IIOR(0xa1, reflect.TypeFor[gokvm.DebugRegs]().Size()),
		}},
		{"xcrs", XCRs{}, gokvm.XCRS{}, map[request]uintptr{
			reqGetXCRs: gokvm.IIOR(0xa6, reflect.TypeFor[gokvm.XCRS]().Size()),
			reqSetXCRs: gokvm.IIOW(0xa7, reflect.TypeFor[gokvm.XCRS]().Size()),
		}},
		{"memory region", MemoryRegion{}, gokvm.UserspaceMemoryRegion{}, map[request]uintptr{
			reqSetUserMemoryRegion: gokvm.IIOW(0x46, reflect.TypeFor[gokvm.UserspaceMemoryRegion]().Size()),
		}},
		{"dirty log", dirtyLog{}, gokvm.DirtyLog{}, map[request]uintptr{
			reqGetDirtyLog: gokvm.IIOW(0x42, reflect.TypeFor[gokvm.DirtyLog]().Size()),
		}},
		{"cpuid entry", CPUIDEntry{}, gokvm.CPUIDEntry2{}, map[request]uintptr{
			reqGetSupportedCPUID: gokvm.IIOWR(0x05, 8),
			reqSetCPUID2:         gokvm.IIOW(0x90, 8),
		}},
		{"pic", PICState{}, gokvm.PICState{}, nil},
		{"pit channel", PITChannel{}, gokvm.PITChannelState{}, nil},
		{"pit", PITState{}, gokvm.PITState2{}, map[request]uintptr{
			reqGetPIT2: gokvm.IIOR(0x9f, reflect.TypeFor[gokvm.PITState2]().Size()),
			reqSetPIT2: gokvm.IIOW(0xa0, reflect.TypeFor[gokvm.PITState2]().Size()),
		}},
		{"vcpu events", VCPUEvents{}, gokvm.VCPUEvents{}, map[request]uintptr{
			reqGetVCPUEvents: gokvm.IIOR(0x9f, reflect.TypeFor[gokvm.VCPUEvents]().Size()),
		}},
		{"translation", translation{}, gokvm.Translation{}, map[request]uintptr{
			reqTranslate: gokvm.IIOWR(0x85, reflect.TypeFor[gokvm.Translation]().Size()),
		}},
		{"clock", ClockData{}, gokvm.ClockData{}, map[request]uintptr{
			reqGetClock: gokvm.IIOR(0x7c, reflect.TypeFor[gokvm.ClockData]().Size()),
		}},
		{"lapic", LAPIC{}, gokvm.LAPICState{}, nil},
		{"numbers only", struct{}{}, struct{}{}, map[request]uintptr{
			reqGetAPIVersion:   gokvm.IIO(0x00),
			reqCreateVM:        gokvm.IIO(0x01),
			reqCheckExtension:  gokvm.IIO(0x03),
			reqGetVCPUMmapSize: gokvm.IIO(0x04),
			reqCreateVCPU:      gokvm.IIO(0x41),
			reqSetTSSAddr:      gokvm.IIO(0x47),
			reqCreateIRQChip:   gokvm.IIO(0x60),
			reqRun:             gokvm.IIO(0x80),
			reqGetMSRs:         gokvm.IIOWR(0x88, 8),
			reqSetMSRs:         gokvm.IIOW(0x89, 8),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := reflect.TypeOf(tt.ours), reflect.TypeOf(tt.theirs)
			if ours.Size() != theirs.Size() {
				t.Errorf("size %d, oracle has %d", ours.Size(), theirs.Size())
			}
			if diff := cmp.Diff(leaves(theirs, 0), leaves(ours, 0)); diff != "" {
				t.Errorf("layout differs (-oracle +ours):\n%s", diff)
			}
			for req, want := range tt.requests {
				if uintptr(req) != want {
					t.Errorf("%s = %#x, oracle has %#x", req, uintptr(req), want)
				}
			}
		})
	}
}
