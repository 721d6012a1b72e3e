package kvm

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testPage builds a kvm_run area with a reason and the words of its union.
func testPage(reason ExitReason, words ...uint64) []byte {
	b := make([]byte, 4096)
	binary.LittleEndian.PutUint32(b[offExitReason:], uint32(reason))
	for i, w := range words {
		binary.LittleEndian.PutUint64(b[offUnion+8*i:], w)
	}
	return b
}

// ioWord packs direction, size, port and count as kvm_run.io has them.
func ioWord(direction, size byte, port uint16, count uint32) uint64 {
	return uint64(direction) | uint64(size)<<8 | uint64(port)<<16 | uint64(count)<<32
}

func TestExitIO(t *testing.T) {
	tests := []struct {
		name   string
		word   uint64
		offset uint64
		ok     bool
	}{
		{"one byte", ioWord(1, 1, 0x3f8, 1), 1024, true},
		{"to the last byte", ioWord(0, 4, 1, 8), 4096 - 32, true},
		{"past the end", ioWord(0, 4, 1, 9), 4096 - 32, false},
		{"at the end", ioWord(0, 1, 1, 1), 4096, false},
		{"offset beyond", ioWord(0, 1, 1, 1), 1 << 40, false},
		{"offset wraps", ioWord(0, 1, 1, 2), 1<<64 - 1, false},
		{"in the header", ioWord(0, 1, 1, 1), 8, false},
		{"huge count", ioWord(0, 4, 1, 1<<32-1), 1024, false},
		{"size 0", ioWord(0, 0, 1, 1), 1024, false},
		{"size 3", ioWord(0, 3, 1, 1), 1024, false},
		{"direction 2", ioWord(2, 1, 1, 1), 1024, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			io, err := exitOf(testPage(ExitIO, tt.word, tt.offset)).IO()
			if (err == nil) != tt.ok {
				t.Fatalf("%+v, %v, want ok %v", io, err, tt.ok)
			}
			if err != nil && !errors.Is(err, ErrExit) {
				t.Errorf("error %v, want ErrExit", err)
			}
			if err == nil && len(io.Data) != io.Size*io.Count {
				t.Errorf("%d bytes for %d of %d", len(io.Data), io.Count, io.Size)
			}
		})
	}
}

func TestExitDecoding(t *testing.T) {
	tests := []struct {
		name      string
		page      []byte
		get       func(Exit) (any, error)
		want      any
		wantError bool
	}{
		{
			name: "fail entry", page: testPage(ExitFailEntry, 0x8000_0021, 3),
			get: func(e Exit) (any, error) {
				r, cpu, err := e.FailEntry()
				return [2]uint64{r, uint64(cpu)}, err
			},
			want: [2]uint64{0x8000_0021, 3},
		}, {
			name: "unknown", page: testPage(ExitUnknown, 77),
			get:  func(e Exit) (any, error) { return e.HardwareReason() },
			want: uint64(77),
		}, {
			name: "exception", page: testPage(ExitException, 14|5<<32),
			get: func(e Exit) (any, error) {
				v, code, err := e.Exception()
				return [2]uint32{v, code}, err
			},
			want: [2]uint32{14, 5},
		}, {
			name: "debug", page: testPage(ExitDebug, 3, 0x1000, 0xffff0ff0, 0x400),
			get:  func(e Exit) (any, error) { return e.Debug() },
			want: DebugInfo{Exception: 3, PC: 0x1000, DR6: 0xffff0ff0, DR7: 0x400},
		}, {
			name: "internal error", page: testPage(ExitInternalError, 3|2<<32, 10, 11, 12),
			get:  func(e Exit) (any, error) { return e.InternalError() },
			want: InternalError{Suberror: 3, N: 2, Data: [16]uint64{10, 11}},
		}, {
			name: "internal error with too many words", page: testPage(ExitInternalError, 3|1<<63),
			get: func(e Exit) (any, error) {
				i, err := e.InternalError()
				return i.N, err
			},
			want: 16,
		}, {
			name: "system event", page: testPage(ExitSystemEvent, SystemEventReset|1<<32, 9, 8),
			get:  func(e Exit) (any, error) { return e.SystemEvent() },
			want: SystemEvent{Type: SystemEventReset, N: 1, Data: [16]uint64{9}},
		}, {
			name: "end of interrupt", page: testPage(ExitIOAPICEOI, 0x1ff),
			get:  func(e Exit) (any, error) { return e.IOAPICEOI() },
			want: uint8(0xff),
		}, {
			name: "hypercall", page: testPage(ExitHypercall, 12, 1, 2, 3, 4, 5, 6, 0, 1),
			get: func(e Exit) (any, error) {
				h, err := e.Hypercall()
				h.Reply(99)
				return []any{h.NR, h.Args, h.LongMode, binary.LittleEndian.Uint64(e.page[offUnion+56:])}, err
			},
			want: []any{uint64(12), [6]uint64{1, 2, 3, 4, 5, 6}, true, uint64(99)},
		}, {
			name: "mmio of 9 bytes", page: testPage(ExitMMIO, 0x1000, 0, 9),
			get: func(e Exit) (any, error) { return e.MMIO() }, wantError: true,
		}, {
			name: "mmio of none", page: testPage(ExitMMIO, 0x1000, 0, 0),
			get: func(e Exit) (any, error) { return e.MMIO() }, wantError: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.get(exitOf(tt.page))
			if tt.wantError {
				if !errors.Is(err, ErrExit) {
					t.Errorf("error %v, want ErrExit", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestExitReasonString(t *testing.T) {
	seen := make(map[string]bool)
	for _, n := range layoutExits() {
		s := ExitReason(n.value).String()
		if s == "" || seen[s] || strings.HasPrefix(s, "exit reason") {
			t.Errorf("%s is called %q", n.expr, s)
		}
		seen[s] = true
	}
}

func TestInternalErrorText(t *testing.T) {
	// Four words with the instruction 0f 0b.
	e := exitOf(testPage(ExitInternalError, InternalEmulation|4<<32, 1, 2|0x0f<<8|0x0b<<16, 0, 7))
	i, err := e.InternalError()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := i.String(), "suberror 1, instruction 0f 0b"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	i.Data[0] = 0
	if got, want := i.String(), "suberror 1, data [0x0 0xb0f02 0x0 0x7]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMSRReply(t *testing.T) {
	page := testPage(ExitRDMSR, 0, 2|0x10<<32, 5)
	m, err := exitOf(page).MSR()
	if err != nil || m.Index != 0x10 || m.Why != 2 || m.Value != 5 {
		t.Fatalf("%+v, %v", m, err)
	}
	m.Reply(7, true)
	if page[offUnion] != 1 || binary.LittleEndian.Uint64(page[offUnion+16:]) != 7 {
		t.Errorf("union % x", page[offUnion:offUnion+24])
	}
}

// FuzzExit decodes arbitrary exit areas: nothing may panic or reach outside.
func FuzzExit(f *testing.F) {
	f.Add(uint32(ExitIO), testPage(ExitIO, ioWord(1, 4, 1, 8), 1024)[offUnion:minRunSize])
	f.Add(uint32(ExitMMIO), testPage(ExitMMIO, 1<<40, 5, 8)[offUnion:minRunSize])
	f.Add(uint32(ExitInternalError), testPage(ExitInternalError, 1|16<<32, 1, 0xff)[offUnion:minRunSize])
	f.Fuzz(func(t *testing.T, reason uint32, union []byte) {
		b := testPage(ExitReason(reason))
		copy(b[offUnion:minRunSize], union)
		e := exitOf(b)
		_ = e.Reason.String()
		if io, err := e.IO(); err == nil {
			if len(io.Data) != io.Size*io.Count || len(io.Data) > len(b)-minRunSize {
				t.Fatalf("%d bytes for %d of %d", len(io.Data), io.Count, io.Size)
			}
			clear(io.Data)
		}
		if m, err := e.MMIO(); err == nil {
			if len(m.Data) < 1 || len(m.Data) > 8 {
				t.Fatalf("%d bytes", len(m.Data))
			}
			clear(m.Data)
		}
		if i, err := e.InternalError(); err == nil {
			_ = i.String()
		}
		if m, err := e.MSR(); err == nil {
			m.Reply(1, true)
		}
		if h, err := e.Hypercall(); err == nil {
			h.Reply(1)
		}
		_, _ = e.SystemEvent()
		_, _ = e.Debug()
		_, _, _ = e.FailEntry()
		_, _, _ = e.Exception()
		_, _ = e.HardwareReason()
		_, _ = e.IOAPICEOI()
	})
}
