package guestmem

import (
	"errors"
	"os"
	"unsafe"
)

// Discard gives the whole pages of [gpa, gpa+n) back to the host; they read as
// zero afterwards, and those covered by MapFile as what the file has there, as if
// the guest had never written to them. Pages that are only partly in the range
// stay. The range must lie inside one region. The guest may run meanwhile: whether
// its writes to the range survive is then up to timing.
func (m *Memory) Discard(gpa, n uint64) error {
	if _, _, ok := m.find(gpa, n); !ok {
		return &Error{Op: "discard", GPA: gpa, Size: n, Err: ErrOutOfRange}
	}
	page := uint64(os.Getpagesize())
	from := (gpa + page - 1) / page * page
	to := (gpa + n) / page * page
	if from >= to {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	for _, o := range m.overlays {
		if o.End() <= from || o.GPA >= to {
			continue
		}
		if o.GPA > from {
			err = errors.Join(err, m.discardPiece(from, o.GPA-from))
		}
		start := max(from, o.GPA)
		from = max(from, min(o.End(), to))
		err = errors.Join(err, m.dropCopies(start, from-start))
	}
	if err = errors.Join(err, m.discardPiece(from, to-from)); err != nil {
		return &Error{Op: "discard", GPA: gpa, Size: n, Err: err}
	}
	return nil
}

// Address returns the guest physical address of b, which must be a slice that
// Slice returned or a part of one: the inverse of Slice.
func (m *Memory) Address(b []byte) (gpa uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	// SAFETY: the pointers are only compared as numbers; neither moves, since
	// regions are mapped memory or kept alive by m.
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	for i := range m.regions {
		r := &m.regions[i]
		base := uintptr(unsafe.Pointer(unsafe.SliceData(r.mem)))
		if off := uint64(at - base); at >= base && off < r.size() && uint64(len(b)) <= r.size()-off {
			return r.gpa + off, true
		}
	}
	return 0, false
}
