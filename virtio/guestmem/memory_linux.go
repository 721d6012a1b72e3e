package guestmem

import (
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
	bad := func(err error) error { return &Error{Op: "map file", GPA: gpa, Size: n, Err: err} }
	page := uint64(os.Getpagesize())
	if off < 0 || gpa%page != 0 || uint64(off)%page != 0 || n%page != 0 {
		return bad(ErrMisaligned)
	}
	if m.heap {
		return bad(ErrUnsupported)
	}
	b, err := m.Slice(gpa, n)
	if err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return bad(err)
	}
	if size := uint64(st.Size()); uint64(off) > size || n-page >= size-uint64(off) {
		return bad(fmt.Errorf("file of %d bytes ends before the range: %w", st.Size(), ErrOutOfRange))
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return bad(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var merr error
	err = raw.Control(func(fd uintptr) {
		// SAFETY: MAP_FIXED replaces whole pages inside a region of ours that
		// was checked by Slice; the addresses stay mapped throughout.
		_, merr = unix.MmapPtr(int(fd), off, unsafe.Pointer(unsafe.SliceData(b)), uintptr(n),
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	})
	if err = errors.Join(err, os.NewSyscallError("mmap", merr)); err != nil {
		return bad(err)
	}
	_ = unix.Madvise(b, unix.MADV_DONTDUMP)
	// What lay below is never seen again.
	_ = m.discardPiece(gpa, n)
	m.overlays = append(m.overlays, Range{gpa, n})
	slices.SortFunc(m.overlays, func(a, b Range) int {
		if a.GPA < b.GPA {
			return -1
		}
		return 1
	})
	return nil
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

// Resident is how much host memory the guest's takes, in bytes: the pages that
// were touched and not discarded. Pages under MapFile are not counted; they
// belong to the host's page cache until the guest writes to them.
func (m *Memory) Resident() (uint64, error) {
	if m.heap {
		return m.Size(), nil
	}
	if m.backing == Memfd {
		var st unix.Stat_t
		if err := unix.Fstat(m.fd, &st); err != nil {
			return 0, &Error{Op: "resident", Err: os.NewSyscallError("fstat", err)}
		}
		return uint64(st.Blocks) * 512, nil
	}
	page := os.Getpagesize()
	vec := make([]byte, 64<<10)
	var n uint64
	for i := range m.regions {
		r := &m.regions[i]
		for off := 0; off < len(r.mem); off += len(vec) * page {
			piece := r.mem[off:min(off+len(vec)*page, len(r.mem))]
			pages := vec[:len(piece)/page]
			if err := mincore(piece, pages); err != nil {
				return 0, &Error{Op: "resident", Err: err}
			}
			for p, v := range pages {
				if v&1 != 0 && !m.covered(r.gpa+uint64(off+p*page)) {
					n += uint64(page)
				}
			}
		}
	}
	return n, nil
}

func mincore(b, vec []byte) error {
	// SAFETY: b is mapped, and vec has one byte for each of its pages.
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(b))),
		uintptr(len(b)), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if e != 0 {
		return os.NewSyscallError("mincore", e)
	}
	return nil
}
