// Package guestmem is the host's only way into a guest's physical memory.
//
// Addresses and lengths that come from a guest are never trusted: every access
// names a guest physical address and a length and is checked, overflow
// included, against the RAM regions. Device registers are not RAM, so a device
// that is told to do DMA into its own or another device's registers gets
// ErrOutOfRange: there is nothing else it could reach.
//
// The guest runs while the host reads, so bytes returned by Slice may change at
// any time. Copy what you validate before you validate it, and use the Load and
// Store methods for fields that both sides poll.
//
// Together with package kvm this is the only package that uses unsafe.
package guestmem

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"unsafe"
)

var (
	// ErrOutOfRange says that an access is not inside one RAM region.
	ErrOutOfRange = errors.New("address range is not guest memory")
	// ErrMisaligned says that an address or a length is not a multiple of what
	// the operation needs.
	ErrMisaligned = errors.New("misaligned")
	// ErrOverlap says that two ranges share addresses.
	ErrOverlap = errors.New("ranges overlap")
	// ErrUnsupported says that the host has no such kind of memory.
	ErrUnsupported = errors.New("not supported on this platform")
)

// Error is the error type of this package. Err is one of the sentinels above or
// an error of the operating system.
type Error struct {
	Op   string // the method, e.g. "slice"
	GPA  uint64 // guest physical address, in bytes
	Size uint64 // length of the access, in bytes
	Err  error
}

// Error describes the access that was refused.
func (e *Error) Error() string {
	return fmt.Sprintf("guestmem: %s [%#x,+%#x): %v", e.Op, e.GPA, e.Size, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Range is a piece of guest physical address space, in bytes.
type Range struct {
	GPA  uint64
	Size uint64
}

// End is the first address behind the range. It is only meaningful for ranges
// that were checked, since it may wrap.
func (r Range) End() uint64 { return r.GPA + r.Size }

// FilePiece is a range of guest memory that shows a file from its byte Offset on.
type FilePiece struct {
	Range
	Offset int64
}

// Region is one RAM region of a Memory, as a hypervisor needs it.
type Region struct {
	GPA        uint64  // first guest physical address
	Size       uint64  // in bytes
	HostAddr   uintptr // where the region is mapped in this process
	FileOffset int64   // where the region begins in the file behind FD
}

// Backing says what kind of host memory holds the guest's.
type Backing uint8

const (
	// Memfd is one sealed memory file, mapped shared. Its descriptor can be
	// handed to other processes. It is the default.
	Memfd Backing = iota
	// Anonymous is private anonymous memory. It has no descriptor, and the
	// host can back it with transparent huge pages without further settings.
	Anonymous
)

// Options says how Allocate gets its memory. The zero value is what the
// package-level Allocate uses.
type Options struct {
	Backing Backing
	// HugePages asks the host for transparent huge pages (madvise). A guest then
	// takes one fault for each 2 MiB touched instead of one for each 4 KiB, at
	// the price of memory that was touched in part only. A host that refuses
	// is not an error. For Memfd it takes effect where
	// /sys/kernel/mm/transparent_hugepage/shmem_enabled allows it.
	HugePages bool
}

type region struct {
	gpa     uint64
	mem     []byte // the whole region; both ends are multiples of 8
	fileOff int64
}

func (r *region) size() uint64 { return uint64(len(r.mem)) }

// Memory is the RAM of one guest. All methods may be called concurrently,
// except Close.
type Memory struct {
	regions []region // sorted, not overlapping, never changed before Close
	fd      int      // memfd, or -1
	backing Backing
	heap    bool // FromBytes: the memory belongs to the caller

	mu       sync.Mutex
	overlays []Range // what MapFile covered; guarded by mu
	closed   bool
}

// Allocate makes guest memory out of one memfd, with the default Options. Pages
// take host memory only once they were touched. Ranges are in bytes, multiples
// of the host's page size, and must not overlap.
func Allocate(ranges ...Range) (*Memory, error) { return Options{}.Allocate(ranges...) }

// FromBytes makes guest memory at gpa out of b, which is shared and not copied:
// for tests and fuzzing. The address of b, its length and gpa must be multiples
// of 8.
func FromBytes(gpa uint64, b []byte) (*Memory, error) {
	bad := func(err error) (*Memory, error) {
		return nil, &Error{Op: "from bytes", GPA: gpa, Size: uint64(len(b)), Err: err}
	}
	if len(b) == 0 || gpa+uint64(len(b)) < gpa {
		return bad(ErrOutOfRange)
	}
	// SAFETY: the pointer is only inspected for its alignment.
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if addr%8 != 0 || len(b)%8 != 0 || gpa%8 != 0 {
		return bad(ErrMisaligned)
	}
	return &Memory{
		regions: []region{{gpa: gpa, mem: b[:len(b):len(b)]}},
		fd:      -1,
		heap:    true,
	}, nil
}

// checkRanges validates and sorts what Allocate was asked for.
func checkRanges(ranges []Range) ([]Range, error) {
	page := uint64(os.Getpagesize())
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int {
		switch {
		case a.GPA < b.GPA:
			return -1
		case a.GPA > b.GPA:
			return 1
		}
		return 0
	})
	bad := func(r Range, err error) ([]Range, error) {
		return nil, &Error{Op: "allocate", GPA: r.GPA, Size: r.Size, Err: err}
	}
	if len(sorted) == 0 {
		return bad(Range{}, ErrOutOfRange)
	}
	var total uint64
	for i, r := range sorted {
		switch {
		case r.Size == 0, r.End() < r.GPA, r.Size > math.MaxInt-total:
			return bad(r, ErrOutOfRange)
		case r.GPA%page != 0 || r.Size%page != 0:
			return bad(r, ErrMisaligned)
		case i > 0 && sorted[i-1].End() > r.GPA:
			return bad(r, ErrOverlap)
		}
		total += r.Size
	}
	return sorted, nil
}

// find returns the region that holds all of [gpa, gpa+n), and gpa's offset in it.
func (m *Memory) find(gpa, n uint64) (*region, int, bool) {
	for i := range m.regions {
		r := &m.regions[i]
		// gpa-r.gpa wraps to something huge when gpa is below the region.
		if off := gpa - r.gpa; off < r.size() && n <= r.size()-off {
			return r, int(off), true
		}
	}
	return nil, 0, false
}

// Contains reports whether [gpa, gpa+n) lies inside one region.
func (m *Memory) Contains(gpa, n uint64) bool {
	_, _, ok := m.find(gpa, n)
	return ok
}

// Slice returns the n bytes of guest memory at gpa, without a copy. They must
// lie inside one region. The slice is valid until Close; its capacity is n. An
// n of 0 gives an empty slice when gpa itself is guest memory.
func (m *Memory) Slice(gpa, n uint64) ([]byte, error) {
	r, off, ok := m.find(gpa, n)
	if !ok {
		return nil, &Error{Op: "slice", GPA: gpa, Size: n, Err: ErrOutOfRange}
	}
	end := off + int(n)
	return r.mem[off:end:end], nil
}

// ReadAt copies guest memory at the guest physical address gpa to p. All of p
// is filled, or nothing. It implements io.ReaderAt.
func (m *Memory) ReadAt(p []byte, gpa int64) (int, error) {
	b, err := m.Slice(uint64(gpa), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	return copy(p, b), nil
}

// WriteAt copies p into guest memory at the guest physical address gpa. All of
// p is written, or nothing. It implements io.WriterAt.
func (m *Memory) WriteAt(p []byte, gpa int64) (int, error) {
	b, err := m.Slice(uint64(gpa), uint64(len(p)))
	if err != nil {
		return 0, err
	}
	return copy(b, p), nil
}

// Regions lists the RAM regions in ascending order of their addresses.
func (m *Memory) Regions() []Region {
	out := make([]Region, len(m.regions))
	for i := range m.regions {
		r := &m.regions[i]
		// SAFETY: only the number of the address leaves; the mapping lives
		// until Close.
		addr := uintptr(unsafe.Pointer(unsafe.SliceData(r.mem)))
		out[i] = Region{GPA: r.gpa, Size: r.size(), HostAddr: addr, FileOffset: r.fileOff}
	}
	return out
}

// Size is the sum of all regions, in bytes.
func (m *Memory) Size() uint64 {
	var n uint64
	for i := range m.regions {
		n += m.regions[i].size()
	}
	return n
}

// FD is the descriptor of the memory file, or -1 when there is none. It belongs
// to the Memory.
func (m *Memory) FD() int { return m.fd }

// Close unmaps the memory and closes its file. The caller guarantees that no
// user of a slice is left and that no virtual machine runs on it: an access
// after Close is a fault of the process. It is idempotent.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if !m.heap {
		err = m.unmap()
	}
	m.regions = nil
	return err
}
