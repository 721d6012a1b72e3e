package guestmem

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// le32 and le64 turn a word as it lies in (little-endian) guest memory into a
// number and back; they cost nothing on little-endian hosts.

func le32(v uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return binary.LittleEndian.Uint32(b[:])
}

func le64(v uint64) uint64 {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	return binary.LittleEndian.Uint64(b[:])
}

// word32 returns the aligned 32-bit word around b[off] and the bit position of
// b[off] in it. The 16-bit accessors work on that word because Go has no 16-bit
// atomics.
func word32(b []byte, off int) (*uint32, uint) {
	// SAFETY: the expression checks that two bytes exist at off (without a load,
	// which would be a data race); only an address is taken.
	p := unsafe.Pointer(unsafe.SliceData(b[off : off+2]))
	low := uintptr(p) & 3
	// SAFETY: regions begin and end on multiples of 8, so the aligned word
	// around any of their bytes lies in the same region.
	return (*uint32)(unsafe.Add(p, -int(low))), uint(low) * 8
}

func load16(b []byte, off int) uint16 {
	w, shift := word32(b, off)
	return uint16(le32(atomic.LoadUint32(w)) >> shift)
}

// store16 changes two bytes of a word whose other half may belong to the guest,
// so it must not write that half back: compare-and-swap fails when the guest
// was faster, and then takes the new value. A guest that keeps writing there
// slows its own device down, since each round is a fair race.
func store16(b []byte, off int, v uint16) {
	w, shift := word32(b, off)
	for {
		old := atomic.LoadUint32(w)
		val := le32(old)&^(0xffff<<shift) | uint32(v)<<shift
		if atomic.CompareAndSwapUint32(w, old, le32(val)) {
			return
		}
	}
}

func word(b []byte, off int) *uint32 {
	// SAFETY: the expression checks that four bytes exist at off; callers
	// checked the alignment.
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(b[off : off+4])))
}

func dword(b []byte, off int) *uint64 {
	// SAFETY: the expression checks that eight bytes exist at off; callers
	// checked the alignment.
	return (*uint64)(unsafe.Pointer(unsafe.SliceData(b[off : off+8])))
}

// aligned finds size bytes at gpa, which must be naturally aligned. A region's
// host address has the alignment of its guest address (at least 8).
func (m *Memory) aligned(op string, gpa, size uint64) ([]byte, int, error) {
	if gpa%size != 0 {
		return nil, 0, &Error{Op: op, GPA: gpa, Size: size, Err: ErrMisaligned}
	}
	r, off, ok := m.find(gpa, size)
	if !ok {
		return nil, 0, &Error{Op: op, GPA: gpa, Size: size, Err: ErrOutOfRange}
	}
	return r.mem, off, nil
}

// LoadUint16 reads a little-endian number at gpa atomically, with the memory
// order of sync/atomic. gpa must be a multiple of the number's size: else the
// error is ErrMisaligned. The other Load and Store methods are alike.
func (m *Memory) LoadUint16(gpa uint64) (uint16, error) {
	b, off, err := m.aligned("load", gpa, 2)
	if err != nil {
		return 0, err
	}
	return load16(b, off), nil
}

// StoreUint16 writes a little-endian number at gpa atomically.
func (m *Memory) StoreUint16(gpa uint64, v uint16) error {
	b, off, err := m.aligned("store", gpa, 2)
	if err != nil {
		return err
	}
	store16(b, off, v)
	return nil
}

// LoadUint32 reads a little-endian number at gpa atomically.
func (m *Memory) LoadUint32(gpa uint64) (uint32, error) {
	b, off, err := m.aligned("load", gpa, 4)
	if err != nil {
		return 0, err
	}
	return le32(atomic.LoadUint32(word(b, off))), nil
}

// StoreUint32 writes a little-endian number at gpa atomically.
func (m *Memory) StoreUint32(gpa uint64, v uint32) error {
	b, off, err := m.aligned("store", gpa, 4)
	if err != nil {
		return err
	}
	atomic.StoreUint32(word(b, off), le32(v))
	return nil
}

// LoadUint64 reads a little-endian number at gpa atomically.
func (m *Memory) LoadUint64(gpa uint64) (uint64, error) {
	b, off, err := m.aligned("load", gpa, 8)
	if err != nil {
		return 0, err
	}
	return le64(atomic.LoadUint64(dword(b, off))), nil
}

// StoreUint64 writes a little-endian number at gpa atomically.
func (m *Memory) StoreUint64(gpa uint64, v uint64) error {
	b, off, err := m.aligned("store", gpa, 8)
	if err != nil {
		return err
	}
	atomic.StoreUint64(dword(b, off), le64(v))
	return nil
}

// Window is a fixed, checked piece of guest memory for fields that are accessed
// often, such as the rings of a virtqueue. Offsets are in bytes; one outside
// the window, or one that breaks the alignment, is a mistake of the caller
// (never of the guest) and panics.
type Window struct {
	b     []byte
	align uintptr // alignment of b[0], at most 8
}

// Window returns the n bytes at gpa; gpa must be a multiple of align (a power of
// two, at most 8).
func (m *Memory) Window(gpa, n, align uint64) (Window, error) {
	if align == 0 || align > 8 || gpa%align != 0 {
		return Window{}, &Error{Op: "window", GPA: gpa, Size: n, Err: ErrMisaligned}
	}
	b, err := m.Slice(gpa, n)
	if err != nil {
		return Window{}, err
	}
	return Window{b: b, align: uintptr(align)}, nil
}

// check panics when an offset is not as aligned as the access needs.
func (w Window) check(off int, size uintptr) {
	if size > w.align || uintptr(off)%size != 0 {
		panic("guestmem: misaligned offset in a window")
	}
}

// Bytes is the window's memory itself.
func (w Window) Bytes() []byte { return w.b }

// Load16 reads a little-endian number atomically.
func (w Window) Load16(off int) uint16 {
	w.check(off, 2)
	return load16(w.b, off)
}

// Store16 writes a little-endian number atomically and is a full barrier.
func (w Window) Store16(off int, v uint16) {
	w.check(off, 2)
	store16(w.b, off, v)
}

// Load32 reads a little-endian number atomically.
func (w Window) Load32(off int) uint32 {
	w.check(off, 4)
	return le32(atomic.LoadUint32(word(w.b, off)))
}

// Store32 writes a little-endian number atomically and is a full barrier.
func (w Window) Store32(off int, v uint32) {
	w.check(off, 4)
	atomic.StoreUint32(word(w.b, off), le32(v))
}
