package kernel

import (
	"debug/elf"
	"fmt"
	"io"
	"slices"
)

const (
	// pageSize is the granularity at which an image can be mapped.
	pageSize = 4096

	// maxELFSize bounds the decompressed file; debug builds are larger, but
	// nobody boots a sandbox with one.
	maxELFSize = 256 << 20

	// maxSpan bounds the memory that a kernel takes at load time.
	maxSpan = 512 << 20

	// maxAddress bounds where a kernel may lie. Guest memory starts at zero and
	// is contiguous below the 32-bit device hole at 3 GiB.
	maxAddress = 3 << 30

	// minAddress keeps the first megabyte free for boot data.
	minAddress = 1 << 20

	// maxSegments is far above the four or five of a vmlinux.
	maxSegments = 64
)

// Segment is one loadable piece of a kernel.
type Segment struct {
	Offset   int64  // where its bytes are in the ELF file
	Addr     uint64 // guest physical address of its first byte
	FileSize uint64 // bytes that come from the file
	MemSize  uint64 // bytes in memory; those past FileSize are zero
}

// Layout says how a kernel lies in guest physical memory.
type Layout struct {
	Base     uint64 // lowest physical address, a multiple of 4096
	FileSize uint64 // from Base to the last byte with content, rounded up to 4096
	MemSize  uint64 // from Base to the end of the last segment, .bss included, rounded up to 4096
	Entry    uint64 // physical address of the 64-bit entry point

	// Segments are sorted by address and do not overlap.
	Segments []Segment
}

// ParseELF reads the program headers of an x86-64 vmlinux and checks that it can
// be laid out: every segment inside the file and inside the memory below 3 GiB,
// none overlapping another, the entry point inside one of them. r may hold
// anything; size is the length of r in bytes. Errors match [ErrFormat] or [ErrTooLarge].
func ParseELF(r io.ReaderAt, size int64) (*Layout, error) {
	l, err := parseELF(r, size)
	if err != nil {
		return nil, &OpError{Op: "parse ELF", Err: err}
	}
	return l, nil
}

func parseELF(r io.ReaderAt, size int64) (*Layout, error) {
	if size > maxELFSize {
		return nil, fmt.Errorf("%w: file of %d bytes", ErrTooLarge, size)
	}
	// The section reader keeps a hostile header from reading past the end.
	f, err := elf.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("%w: %v %v %v", ErrFormat, f.Class, f.Data, f.Machine)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return nil, fmt.Errorf("%w: type %v", ErrFormat, f.Type)
	}
	segs, err := loadSegments(f, uint64(size))
	if err != nil {
		return nil, err
	}
	return newLayout(segs, f.Entry)
}

// loadSegments collects the PT_LOAD headers, each checked by itself.
func loadSegments(f *elf.File, size uint64) ([]Segment, error) {
	var segs []Segment
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		if len(segs) == maxSegments {
			return nil, fmt.Errorf("%w: more than %d segments", ErrFormat, maxSegments)
		}
		switch {
		case p.Filesz > p.Memsz:
			return nil, fmt.Errorf("%w: segment at %#x has more bytes in the file than in memory", ErrFormat, p.Paddr)
		case p.Off > size || p.Filesz > size-p.Off:
			return nil, fmt.Errorf("%w: segment at %#x reaches past the end of the file", ErrFormat, p.Paddr)
		case p.Paddr < minAddress || p.Paddr >= maxAddress:
			return nil, fmt.Errorf("%w: segment at %#x", ErrFormat, p.Paddr)
		case p.Memsz > maxSpan || p.Memsz > maxAddress-p.Paddr:
			return nil, fmt.Errorf("%w: segment at %#x of %d bytes", ErrTooLarge, p.Paddr, p.Memsz)
		}
		segs = append(segs, Segment{Offset: int64(p.Off), Addr: p.Paddr, FileSize: p.Filesz, MemSize: p.Memsz})
	}
	if len(segs) == 0 {
		return nil, fmt.Errorf("%w: no loadable segment", ErrFormat)
	}
	return segs, nil
}

// newLayout sorts segments and checks them against each other.
func newLayout(segs []Segment, entry uint64) (*Layout, error) {
	slices.SortFunc(segs, func(a, b Segment) int {
		switch {
		case a.Addr < b.Addr:
			return -1
		case a.Addr > b.Addr:
			return 1
		}
		return 0
	})
	l := &Layout{Base: segs[0].Addr &^ (pageSize - 1), Entry: entry, Segments: segs}
	var fileEnd, memEnd uint64
	entered := false
	for _, s := range segs {
		if s.Addr < memEnd {
			return nil, fmt.Errorf("%w: segments overlap at %#x", ErrFormat, s.Addr)
		}
		memEnd = s.Addr + s.MemSize
		if s.FileSize > 0 {
			fileEnd = s.Addr + s.FileSize
		}
		if entry >= s.Addr && entry-s.Addr < s.FileSize {
			entered = true
		}
	}
	if !entered {
		return nil, fmt.Errorf("%w: entry point %#x is outside of every segment", ErrFormat, entry)
	}
	l.FileSize = roundUp(fileEnd - l.Base)
	l.MemSize = roundUp(memEnd - l.Base)
	if l.MemSize > maxSpan {
		return nil, fmt.Errorf("%w: spans %d bytes", ErrTooLarge, l.MemSize)
	}
	return l, nil
}

// Flatten copies the segments from the ELF file r to w, each at its distance
// from l.Base, and leaves out pages that hold only zeroes. w must read as zero
// wherever it is not written, as a new file does; making it l.FileSize long is
// the caller's part.
func (l *Layout) Flatten(w io.WriterAt, r io.ReaderAt) error {
	if err := l.flatten(w, r); err != nil {
		return &OpError{Op: "flatten", Err: err}
	}
	return nil
}

func (l *Layout) flatten(w io.WriterAt, r io.ReaderAt) error {
	buf := make([]byte, 64*pageSize)
	for _, s := range l.Segments {
		for done := uint64(0); done < s.FileSize; {
			at := s.Addr - l.Base + done
			// Start on a page boundary from the second piece on, so that a
			// piece of zeroes is a hole of whole pages.
			n := min(uint64(len(buf))-at%pageSize, s.FileSize-done)
			if _, err := io.ReadFull(io.NewSectionReader(r, s.Offset+int64(done), int64(n)), buf[:n]); err != nil {
				return err
			}
			if err := writeSparse(w, buf[:n], int64(at)); err != nil {
				return err
			}
			done += n
		}
	}
	return nil
}

// writeSparse writes runs of pages that are not all zero.
func writeSparse(w io.WriterAt, p []byte, at int64) error {
	for len(p) > 0 {
		skip := 0
		for skip < len(p) && isZero(page(p[skip:], at+int64(skip))) {
			skip += len(page(p[skip:], at+int64(skip)))
		}
		p, at = p[skip:], at+int64(skip)
		run := 0
		for run < len(p) && !isZero(page(p[run:], at+int64(run))) {
			run += len(page(p[run:], at+int64(run)))
		}
		if run > 0 {
			if _, err := w.WriteAt(p[:run], at); err != nil {
				return err
			}
		}
		p, at = p[run:], at+int64(run)
	}
	return nil
}

// page returns what of p lies in the page that contains offset at.
func page(p []byte, at int64) []byte {
	return p[:min(len(p), pageSize-int(at%pageSize))]
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

func roundUp(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }
