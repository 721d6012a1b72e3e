package boot

import (
	"encoding/binary"
	"io"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// The few ELF64 structures needed, parsed by hand so that a hostile file can
// cost no more than its program headers (debug/elf reads sections as well).
const (
	elfHeaderSize   = 64
	elfPhdrSize     = 56
	elfMaxPhdrs     = 64
	elfClass64      = 2
	elfLittleEndian = 1
	elfTypeExec     = 2
	elfMachineAMD64 = 62
	elfPTLoad       = 1
)

type segment struct {
	off           int64
	paddr         uint64
	filesz, memsz uint64
}

func loadELF(mem *guestmem.Memory, r io.ReaderAt, size int64) (Kernel, error) {
	var h [elfHeaderSize]byte
	if size < int64(len(h)) {
		return Kernel{}, because(ErrTruncated, "%d bytes", size)
	}
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return Kernel{}, err
	}
	le := binary.LittleEndian
	if h[4] != elfClass64 || h[5] != elfLittleEndian || le.Uint16(h[16:]) != elfTypeExec || le.Uint16(h[18:]) != elfMachineAMD64 {
		return Kernel{}, ErrNotKernel
	}
	entry, phoff := le.Uint64(h[24:]), le.Uint64(h[32:])
	phentsize, phnum := le.Uint16(h[54:]), int(le.Uint16(h[56:]))
	if phentsize != elfPhdrSize || phnum == 0 || phnum > elfMaxPhdrs {
		return Kernel{}, because(ErrBadKernel, "%d program headers of %d bytes", phnum, phentsize)
	}
	if phoff > uint64(size) || uint64(size)-phoff < uint64(phnum*elfPhdrSize) {
		return Kernel{}, because(ErrTruncated, "program headers at %#x", phoff)
	}
	table := make([]byte, phnum*elfPhdrSize)
	if _, err := r.ReadAt(table, int64(phoff)); err != nil {
		return Kernel{}, err
	}

	var segs []segment
	start, end := ^uint64(0), uint64(0)
	for ; len(table) > 0; table = table[elfPhdrSize:] {
		if le.Uint32(table) != elfPTLoad {
			continue
		}
		off := le.Uint64(table[8:])
		s := segment{paddr: le.Uint64(table[24:]), filesz: le.Uint64(table[32:]), memsz: le.Uint64(table[40:])}
		if s.memsz == 0 {
			continue
		}
		if s.filesz > s.memsz || s.memsz > maxKernelSpan || s.paddr > maxKernelSpan*4 {
			return Kernel{}, because(ErrBadKernel, "segment at %#x: %d bytes in file, %d in memory", s.paddr, s.filesz, s.memsz)
		}
		if off > uint64(size) || uint64(size)-off < s.filesz {
			return Kernel{}, because(ErrTruncated, "segment of %d bytes at offset %#x", s.filesz, off)
		}
		s.off = int64(off)
		for _, o := range segs {
			if s.paddr < o.paddr+o.memsz && o.paddr < s.paddr+s.memsz {
				return Kernel{}, because(ErrBadKernel, "segments overlap at %#x", s.paddr)
			}
		}
		segs = append(segs, s)
		start, end = min(start, s.paddr), max(end, s.paddr+s.memsz)
	}
	if len(segs) == 0 {
		return Kernel{}, because(ErrBadKernel, "no loadable segment")
	}
	if entry < start || entry >= end {
		return Kernel{}, because(ErrBadKernel, "entry point %#x outside the kernel", entry)
	}
	if err := checkPlacement(mem, start, end); err != nil {
		return Kernel{}, err
	}
	for _, s := range segs {
		// Memory past filesz is .bss: guest RAM is zero when the machine is new.
		if err := readInto(mem, s.paddr, s.filesz, r, s.off); err != nil {
			return Kernel{}, err
		}
	}
	return Kernel{Entry: entry, Start: start, End: end}, nil
}
