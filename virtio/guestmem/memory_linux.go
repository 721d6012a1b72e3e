package guestmem

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the page size that huge mappings of x86-64 and arm64 (4 KiB
// granule) use. Host and guest address must agree modulo it, or neither the
// host's nor the second-level page tables can use one.
const hugePage = 2 << 20

// Allocate makes guest memory as the options say. See the function Allocate.
func (o Options) Allocate(ranges ...Range) (_ *Memory, err error) {
	sorted, err := checkRanges(ranges)
	if err != nil {
		return nil, err
	}
	m := &Memory{fd: -1, backing: o.Backing}
	maps := make([]region, 0, len(sorted))
	defer func() {
		if err != nil {
			m.regions = maps
			_ = m.unmap()
		}
	}()

	var total uint64
	for _, r := range sorted {
		total += r.Size
	}
	flags := unix.MAP_FIXED | unix.MAP_NORESERVE
	switch o.Backing {
	case Memfd:
		flags |= unix.MAP_SHARED
		if m.fd, err = sealedMemfd(int64(total)); err != nil {
			return nil, &Error{Op: "allocate", GPA: sorted[0].GPA, Size: total, Err: err}
		}
	case Anonymous:
		flags |= unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	default:
		return nil, &Error{Op: "allocate", Err: fmt.Errorf("backing %d: %w", o.Backing, ErrUnsupported)}
	}

	var off int64
	for _, r := range sorted {
		mem, err := mapAligned(r, m.fd, off, flags)
		if err != nil {
			return nil, &Error{Op: "map", GPA: r.GPA, Size: r.Size, Err: err}
		}
		maps = append(maps, region{gpa: r.GPA, mem: mem, fileOff: off})
		// Both are hints; a kernel without them works as well.
		_ = unix.Madvise(mem, unix.MADV_DONTDUMP)
		if o.HugePages {
			_ = unix.Madvise(mem, unix.MADV_HUGEPAGE)
		}
		off += int64(r.Size)
	}
	m.regions = maps
	return m, nil
}

// sealedMemfd makes a memory file whose size nobody can change any more: a
// mapping of it can never raise SIGBUS.
func sealedMemfd(size int64) (int, error) {
	fd, err := unix.MemfdCreate("guest-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("ftruncate", err)
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

// mapAligned maps r so that host and guest addresses agree modulo hugePage.
func mapAligned(r Range, fd int, off int64, flags int) ([]byte, error) {
	if r.Size > math.MaxInt-hugePage {
		return nil, unix.ENOMEM
	}
	size := uintptr(r.Size)
	// SAFETY: reserves fresh address space at a place the kernel chooses.
	base, err := unix.MmapPtr(-1, 0, nil, size+hugePage, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	skip := (uintptr(r.GPA) - uintptr(base)) % hugePage
	// SAFETY: skip < hugePage, so [start, start+size) lies in the reservation.
	start := unsafe.Add(base, skip)
	// SAFETY: MAP_FIXED replaces a part of the reservation, which nobody uses.
	if _, err := unix.MmapPtr(fd, off, start, size, unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
		// SAFETY: nobody was told of the reservation.
		_ = unix.MunmapPtr(base, size+hugePage)
		return nil, os.NewSyscallError("mmap", err)
	}
	if skip > 0 {
		// SAFETY: the unused head of the reservation.
		_ = unix.MunmapPtr(base, skip)
	}
	if tail := hugePage - skip; tail > 0 {
		// SAFETY: the unused tail of the reservation.
		_ = unix.MunmapPtr(unsafe.Add(start, size), tail)
	}
	// SAFETY: exactly these bytes were mapped, and they stay so until unmap.
	return unsafe.Slice((*byte)(start), size), nil
}

// unmap undoes Allocate.
func (m *Memory) unmap() error {
	var errs []error
	for _, r := range m.regions {
		// SAFETY: Allocate mapped exactly this range, overlays of MapFile lie
		// inside it, and Close's caller guarantees that no user is left.
		if err := unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(r.mem)), uintptr(len(r.mem))); err != nil {
			errs = append(errs, os.NewSyscallError("munmap", err))
		}
	}
	if m.fd >= 0 {
		if err := unix.Close(m.fd); err != nil {
			errs = append(errs, os.NewSyscallError("close", err))
		}
		m.fd = -1
	}
	return errors.Join(errs...)
}

// MapFile puts n bytes of the file f, from its byte off on, over the guest pages
// at gpa, copy-on-write: the guest's writes never reach the file, and pages that
// it only reads are shared with the host's page cache. gpa, off and n must be
// multiples of the host's page size; the file must reach into the last page,
// and the caller guarantees that it is not truncated while the Memory lives (a
// page that is gone would be a SIGBUS). What the range held before is lost. f
// may be closed afterwards. It must not run while the guest uses the range.
func (m *Memory) MapFile(gpa uint64, f *os.File, off int64, n uint64) error {
	return m.MapFiles(f, []FilePiece{{Range: Range{gpa, n}, Offset: off}})
}

// MapFiles does what MapFile does for many pieces of one file. Nothing is mapped
// when one of them cannot be.
func (m *Memory) MapFiles(f *os.File, pieces []FilePiece) error {
	st, err := f.Stat()
	if err != nil {
		return &Error{Op: "map file", Err: err}
	}
	parts := make([][]byte, len(pieces))
	for i, p := range pieces {
		if parts[i], err = m.checkPiece(p, uint64(st.Size())); err != nil {
			return err
		}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return &Error{Op: "map file", Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var failed error
	err = raw.Control(func(fd uintptr) {
		for i, p := range pieces {
			if failed = m.mapPiece(int(fd), p, parts[i]); failed != nil {
				return
			}
		}
	})
	slices.SortFunc(m.overlays, func(a, b Range) int { return cmp.Compare(a.GPA, b.GPA) })
	for _, r := range m.regions { // one call, since neighbours can be merged then
		_ = unix.Madvise(r.mem, unix.MADV_DONTDUMP)
	}
	if err := errors.Join(err, failed); err != nil {
		return &Error{Op: "map file", Err: err}
	}
	return nil
}

// checkPiece returns the memory that a piece of a file of size bytes covers.
func (m *Memory) checkPiece(p FilePiece, size uint64) ([]byte, error) {
	bad := func(err error) ([]byte, error) {
		return nil, &Error{Op: "map file", GPA: p.GPA, Size: p.Size, Err: err}
	}
	page := uint64(os.Getpagesize())
	if p.Offset < 0 || p.GPA%page != 0 || uint64(p.Offset)%page != 0 || p.Size%page != 0 {
		return bad(ErrMisaligned)
	}
	if m.heap {
		return bad(ErrUnsupported)
	}
	b, err := m.Slice(p.GPA, p.Size)
	if err != nil || p.Size == 0 {
		return b, err
	}
	if uint64(p.Offset) > size || p.Size-page >= size-uint64(p.Offset) {
		return bad(fmt.Errorf("file of %d bytes ends before the range: %w", size, ErrOutOfRange))
	}
	return b, nil
}

// mapPiece maps one piece over b, the memory it covers. The caller holds m.mu.
func (m *Memory) mapPiece(fd int, p FilePiece, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	// SAFETY: MAP_FIXED replaces whole pages inside a region of ours that
	// was checked by Slice; the addresses stay mapped throughout.
	_, err := unix.MmapPtr(fd, p.Offset, unsafe.Pointer(unsafe.SliceData(b)), uintptr(p.Size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if m.backing == Memfd { // what lay below is never seen again
		_ = m.discardPiece(p.GPA, p.Size)
	}
	m.overlays = append(m.overlays, p.Range)
	return nil
}

// dropCopies gives back the private copies of pages covered by MapFile. The caller
// holds m.mu and checked the range.
func (m *Memory) dropCopies(gpa, n uint64) error {
	r, off, ok := m.find(gpa, n)
	if !ok || n == 0 {
		return nil
	}
	return os.NewSyscallError("madvise", unix.Madvise(r.mem[off:off+int(n)], unix.MADV_DONTNEED))
}

// discardPiece gives whole pages back to the host. The caller holds m.mu and
// checked the range; none of it is covered by MapFile.
func (m *Memory) discardPiece(gpa, n uint64) error {
	r, off, ok := m.find(gpa, n)
	if !ok || n == 0 {
		return nil
	}
	piece := r.mem[off : off+int(n)]
	switch {
	case m.heap:
		clear(piece)
		return nil
	case m.backing == Memfd:
		return os.NewSyscallError("fallocate", unix.Fallocate(m.fd,
			unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.fileOff+int64(off), int64(n)))
	default:
		return os.NewSyscallError("madvise", unix.Madvise(piece, unix.MADV_DONTNEED))
	}
}
