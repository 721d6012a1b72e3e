package guestmem

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bits of an entry of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61 // of a file or of shared memory: not a private copy
)

// Resident is how much host memory the guest's takes, in bytes: the pages that
// were touched and not discarded. Of pages under MapFile those count that the
// guest has written to; the others belong to the host's page cache.
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
	n, err := private(m.regions)
	if err != nil {
		return 0, &Error{Op: "resident", Err: err}
	}
	return n, nil
}

// Written is how many bytes of a range the guest has written to, in whole pages, or that
// are for another reason no longer those of MapFile.
func (m *Memory) Written(r Range) (uint64, error) {
	bad := func(err error) (uint64, error) {
		return 0, &Error{Op: "written", GPA: r.GPA, Size: r.Size, Err: err}
	}
	b, err := m.Slice(r.GPA, r.Size)
	if err != nil {
		return 0, err
	}
	if m.heap || m.backing == Memfd {
		return bad(ErrUnsupported)
	}
	n, err := private([]region{{gpa: r.GPA, mem: b}})
	if err != nil {
		return bad(err)
	}
	return n, nil
}

// private is how many bytes of regions are pages of the process's own.
func private(regions []region) (uint64, error) {
	var n uint64
	page := uint64(os.Getpagesize())
	err := eachPage(regions, func(_, entry uint64) error {
		if entry&(pagePresent|pageSwapped) != 0 && entry&pageOfFile == 0 {
			n += page
		}
		return nil
	})
	return n, err
}

// Touched calls f for each run of pages that may hold something else than
// zeroes, in ascending order. An error of f ends it. The guest must not run, or
// pages that it touches meanwhile may be missing.
func (m *Memory) Touched(f func(Range) error) error {
	var run Range
	if m.heap || m.backing == Memfd {
		for _, r := range m.regions {
			if err := f(Range{r.gpa, r.size()}); err != nil {
				return err
			}
		}
		return nil
	}
	page := uint64(os.Getpagesize())
	m.mu.Lock()
	files := slices.Clone(m.overlays)
	m.mu.Unlock()
	err := eachPage(m.regions, func(gpa, entry uint64) error {
		for len(files) > 0 && files[0].End() <= gpa {
			files = files[1:]
		}
		if entry&(pagePresent|pageSwapped) == 0 && (len(files) == 0 || gpa < files[0].GPA) {
			return nil
		}
		if run.Size > 0 && run.End() == gpa {
			run.Size += page
			return nil
		}
		var err error
		if run.Size > 0 {
			err = f(run)
		}
		run = Range{gpa, page}
		return err
	})
	if err == nil && run.Size > 0 {
		err = f(run)
	}
	return err
}

// eachPage calls f with each page of regions and its entry in the page map.
func eachPage(regions []region, f func(gpa, entry uint64) error) error {
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return err
	}
	defer pagemap.Close()
	page := os.Getpagesize()
	buf := make([]byte, 64<<10)
	for _, r := range regions {
		// SAFETY: only the number of the address is used; the mapping lives
		// until Close.
		base := uintptr(unsafe.Pointer(unsafe.SliceData(r.mem)))
		for off := 0; off < len(r.mem); off += len(buf) / 8 * page {
			entries := buf[:min(len(buf), (len(r.mem)-off)/page*8)]
			at := int64(base/uintptr(page))*8 + int64(off/page*8)
			if n, err := pagemap.ReadAt(entries, at); n < len(entries) {
				return errors.Join(err, errShortPagemap)
			}
			for i := 0; i < len(entries); i += 8 {
				if err := f(r.gpa+uint64(off+i/8*page), binary.NativeEndian.Uint64(entries[i:])); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

var errShortPagemap = errors.New("the page map ends before guest memory does")
