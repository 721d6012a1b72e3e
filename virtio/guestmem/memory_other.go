//go:build !linux

package guestmem

import "os"

// Allocate needs Linux: the error is ErrUnsupported.
func (o Options) Allocate(ranges ...Range) (*Memory, error) {
	if _, err := checkRanges(ranges); err != nil {
		return nil, err
	}
	return nil, &Error{Op: "allocate", Err: ErrUnsupported}
}

// MapFile needs Linux: the error is ErrUnsupported.
func (m *Memory) MapFile(gpa uint64, f *os.File, off int64, n uint64) error {
	return &Error{Op: "map file", GPA: gpa, Size: n, Err: ErrUnsupported}
}

// MapFiles needs Linux: the error is ErrUnsupported.
func (m *Memory) MapFiles(f *os.File, pieces []FilePiece) error {
	return &Error{Op: "map file", Err: ErrUnsupported}
}

// Touched calls f for all of the memory, since nothing better is known.
func (m *Memory) Touched(f func(Range) error) error {
	for _, r := range m.regions {
		if err := f(Range{r.gpa, r.size()}); err != nil {
			return err
		}
	}
	return nil
}

// Resident is the size of the memory, since nothing better is known.
func (m *Memory) Resident() (uint64, error) { return m.Size(), nil }

// Written needs Linux: the error is ErrUnsupported.
func (m *Memory) Written(r Range) (uint64, error) {
	return 0, &Error{Op: "written", GPA: r.GPA, Size: r.Size, Err: ErrUnsupported}
}

func (m *Memory) discardPiece(gpa, n uint64) error {
	if r, off, ok := m.find(gpa, n); ok {
		clear(r.mem[off : off+int(n)])
	}
	return nil
}

func (m *Memory) dropCopies(gpa, n uint64) error { return nil }

func (m *Memory) unmap() error { return nil }
