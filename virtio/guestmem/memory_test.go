package guestmem

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	_ io.ReaderAt = (*Memory)(nil)
	_ io.WriterAt = (*Memory)(nil)
)

func fromBytes(t *testing.T, gpa uint64, n int) *Memory {
	t.Helper()
	m, err := FromBytes(gpa, make([]byte, n))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSlice(t *testing.T) {
	const base, size = 0x10000, 0x1000
	m := fromBytes(t, base, size)
	for _, tt := range []struct {
		name   string
		gpa, n uint64
		ok     bool
	}{
		{"all", base, size, true},
		{"last byte", base + size - 1, 1, true},
		{"nothing", base, 0, true},
		{"nothing at the end", base + size, 0, false},
		{"one too many", base, size + 1, false},
		{"over the end", base + size - 1, 2, false},
		{"below", base - 1, 2, false},
		{"far below", 0, 1, false},
		{"above", base + size, 1, false},
		{"length wraps", base + 8, math.MaxUint64 - 4, false},
		{"end wraps to inside", math.MaxUint64, base + 16, false},
		{"whole address space", 0, math.MaxUint64, false},
		// CVE-2024-3446: device registers live outside RAM, where the accessor
		// has nothing to give.
		{"device registers", 0xd000_0000, 4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := m.Slice(tt.gpa, tt.n)
			if (err == nil) != tt.ok {
				t.Fatalf("Slice(%#x, %#x): %v, want ok %t", tt.gpa, tt.n, err, tt.ok)
			}
			if m.Contains(tt.gpa, tt.n) != tt.ok {
				t.Errorf("Contains disagrees with Slice")
			}
			if err != nil {
				var e *Error
				if !errors.Is(err, ErrOutOfRange) || !errors.As(err, &e) || e.GPA != tt.gpa || e.Size != tt.n {
					t.Errorf("error %v does not say what was refused", err)
				}
				return
			}
			if uint64(len(b)) != tt.n || cap(b) != len(b) {
				t.Errorf("len %d, cap %d, want %d", len(b), cap(b), tt.n)
			}
			if gpa, ok := m.Address(b); tt.n > 0 && (!ok || gpa != tt.gpa) {
				t.Errorf("Address is %#x, %t, want %#x", gpa, ok, tt.gpa)
			}
		})
	}
	if _, ok := m.Address(make([]byte, 8)); ok {
		t.Error("Address knows a slice that is not guest memory")
	}
}

func TestReadWriteAt(t *testing.T) {
	m := fromBytes(t, 0x1000, 0x1000)
	want := []byte("twelve bytes")
	if n, err := m.WriteAt(want, 0x1ff4); n != 12 || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, 12)
	if n, err := m.ReadAt(got, 0x1ff4); n != 12 || err != nil {
		t.Fatal(n, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// All or nothing.
	if n, err := m.WriteAt([]byte("x23456789abcd"), 0x1ff4); n != 0 || !errors.Is(err, ErrOutOfRange) {
		t.Errorf("write over the end: %d, %v", n, err)
	}
	if _, err := m.ReadAt(got, -1); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("read at -1: %v", err)
	}
	if _, err := m.ReadAt(got, 0x1ff4); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a refused write left %q", got)
	}
}

func TestAtomics(t *testing.T) {
	const base = 0x8000
	m := fromBytes(t, base, 64)
	b, err := m.Slice(base, 64)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] = byte(i)
	}
	for _, gpa := range []uint64{base, base + 2, base + 62} {
		off := gpa - base
		v, err := m.LoadUint16(gpa)
		if want := uint16(off) | uint16(off+1)<<8; err != nil || v != want {
			t.Errorf("LoadUint16(%#x) = %#x, %v, want %#x", gpa, v, err, want)
		}
		if err := m.StoreUint16(gpa, 0xbbaa); err != nil {
			t.Error(err)
		}
		want := []byte{byte(off) - 1, 0xaa, 0xbb, byte(off + 2)}
		got := append([]byte{byte(off) - 1}, b[off:off+2]...)
		if off > 0 {
			got[0] = b[off-1]
		}
		if off+2 < 64 {
			got = append(got, b[off+2])
		} else {
			got = append(got, byte(off+2))
		}
		if off != 2 { // its neighbour was overwritten by the one before
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("around %#x (-want +got)\n%s", gpa, diff)
			}
		}
	}
	if v, err := m.LoadUint32(base + 8); err != nil || v != 0x0b0a0908 {
		t.Errorf("LoadUint32: %#x, %v", v, err)
	}
	if v, err := m.LoadUint64(base + 8); err != nil || v != 0x0f0e0d0c0b0a0908 {
		t.Errorf("LoadUint64: %#x, %v", v, err)
	}
	if err := errors.Join(m.StoreUint32(base+16, 0x44332211), m.StoreUint64(base+24, 0x8877665544332211)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]byte{0x11, 0x22, 0x33, 0x44}, b[16:20]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]byte{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}, b[24:32]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	for name, f := range map[string]func(uint64) error{
		"load 16":  func(gpa uint64) error { _, err := m.LoadUint16(gpa); return err },
		"load 32":  func(gpa uint64) error { _, err := m.LoadUint32(gpa); return err },
		"load 64":  func(gpa uint64) error { _, err := m.LoadUint64(gpa); return err },
		"store 16": func(gpa uint64) error { return m.StoreUint16(gpa, 0) },
		"store 32": func(gpa uint64) error { return m.StoreUint32(gpa, 0) },
		"store 64": func(gpa uint64) error { return m.StoreUint64(gpa, 0) },
	} {
		if err := f(base + 1); !errors.Is(err, ErrMisaligned) {
			t.Errorf("%s of an odd address: %v", name, err)
		}
		if err := f(base + 64); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%s behind the end: %v", name, err)
		}
		if err := f(0); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%s of address 0: %v", name, err)
		}
	}
}

// TestStore16Neighbours has two sides write to the two halves of a word: neither
// may undo the other's (an index beside an event field, say).
func TestStore16Neighbours(t *testing.T) {
	m := fromBytes(t, 0, 8)
	const rounds = 20000
	var wg sync.WaitGroup
	for _, gpa := range []uint64{0, 2} {
		wg.Go(func() {
			for i := range rounds {
				if err := m.StoreUint16(gpa, uint16(i)); err != nil {
					t.Error(err)
					return
				}
				if v, _ := m.LoadUint16(gpa); v != uint16(i) {
					t.Errorf("read %d back, want %d", v, i)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWindow(t *testing.T) {
	m := fromBytes(t, 0x1000, 0x1000)
	w, err := m.Window(0x1ffc, 4, 4)
	if err != nil {
		t.Fatal(err)
	}
	w.Store16(2, 0xabcd)
	if v := w.Load32(0); v != 0xabcd0000 {
		t.Errorf("%#x", v)
	}
	if v, err := m.LoadUint16(0x1ffe); v != 0xabcd || err != nil {
		t.Errorf("%#x, %v", v, err)
	}
	for _, bad := range []struct{ gpa, n, align uint64 }{
		{0x1ffc, 8, 4}, {0x1ffe, 2, 4}, {0x1000, 8, 0}, {0x1000, 8, 16}, {0xffffffffffffffff, 2, 1},
	} {
		if _, err := m.Window(bad.gpa, bad.n, bad.align); err == nil {
			t.Errorf("window %#v was given", bad)
		}
	}
	for name, f := range map[string]func(){
		"behind the end": func() { w.Load16(4) },
		"over the end":   func() { w.Load32(4) },
		"misaligned":     func() { w.Load16(1) },
		"misaligned 32":  func() { w.Store32(2, 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestFromBytesRefuses(t *testing.T) {
	b := make([]byte, 64)
	for name, f := range map[string]func() (*Memory, error){
		"empty":             func() (*Memory, error) { return FromBytes(0, nil) },
		"odd length":        func() (*Memory, error) { return FromBytes(0, b[:9]) },
		"odd host address":  func() (*Memory, error) { return FromBytes(0, b[1:9]) },
		"odd guest address": func() (*Memory, error) { return FromBytes(4, b) },
		"wraps":             func() (*Memory, error) { return FromBytes(math.MaxUint64-7, b) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCheckRanges(t *testing.T) {
	page := uint64(os.Getpagesize())
	for _, tt := range []struct {
		name   string
		ranges []Range
		want   error
	}{
		{"none", nil, ErrOutOfRange},
		{"empty", []Range{{0, 0}}, ErrOutOfRange},
		{"wraps", []Range{{math.MaxUint64 - page + 1, 2 * page}}, ErrOutOfRange},
		{"odd address", []Range{{1, page}}, ErrMisaligned},
		{"odd size", []Range{{0, page + 1}}, ErrMisaligned},
		{"overlap", []Range{{page, 2 * page}, {0, 2 * page}}, ErrOverlap},
		{"more than an address space", []Range{{0, 1 << 62}, {1 << 62, 1 << 62}}, ErrOutOfRange},
	} {
		if _, err := Allocate(tt.ranges...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	got, err := checkRanges([]Range{{4 << 30, page}, {0, page}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Range{{0, page}, {4 << 30, page}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Hot paths must not allocate.
func TestAllocs(t *testing.T) {
	m := fromBytes(t, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = m.Slice(8, 100)
		_, _ = m.LoadUint16(8)
		_ = m.StoreUint16(8, 1)
		m.Contains(1<<40, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
