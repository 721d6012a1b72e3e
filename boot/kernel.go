package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Kernel says where a kernel lies in guest memory and how to enter it.
type Kernel struct {
	// Entry is the guest physical address of the 64-bit entry point.
	Entry uint64
	// Start and End bound the guest memory that belongs to the kernel,
	// its .bss (and for a bzImage its decompression space) included.
	Start, End uint64
	// setup is the setup header of a bzImage, from offset 0x1f1 of the file;
	// nil for an ELF kernel.
	setup []byte
}

// maxKernelSpan bounds how much guest memory a kernel file may claim.
const maxKernelSpan = 1 << 30

// Load copies the kernel in r, size bytes long, into mem. The format is told
// by its magic number: ELF64 vmlinux or bzImage.
func Load(mem *guestmem.Memory, r io.ReaderAt, size int64) (Kernel, error) {
	var head [0x206]byte
	n, err := r.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Kernel{}, opErr("read kernel", err)
	}
	switch {
	case n >= 4 && bytes.Equal(head[:4], []byte("\x7fELF")):
		k, err := loadELF(mem, r, size)
		return k, opErr("load ELF kernel", err)
	case n == len(head) && binary.LittleEndian.Uint32(head[0x202:]) == setupMagic:
		k, err := loadBzImage(mem, r, size)
		return k, opErr("load bzImage", err)
	case n < len(head):
		return Kernel{}, opErr("read kernel", because(ErrTruncated, "%d bytes", n))
	}
	return Kernel{}, opErr("read kernel", ErrNotKernel)
}

// readInto fills guest memory [gpa, gpa+n) from r at off.
func readInto(mem *guestmem.Memory, gpa, n uint64, r io.ReaderAt, off int64) error {
	if n == 0 {
		return nil
	}
	dst, err := mem.Slice(gpa, n)
	if err != nil {
		return because(ErrTooSmall, "[%#x, %#x) is needed", gpa, gpa+n)
	}
	if _, err := r.ReadAt(dst, off); err != nil {
		if errors.Is(err, io.EOF) {
			return because(ErrTruncated, "%d bytes at offset %#x are missing", n, off)
		}
		return err
	}
	return nil
}

// checkPlacement refuses a kernel that would not lie in RAM above 1 MiB.
func checkPlacement(mem *guestmem.Memory, start, end uint64) error {
	if end <= start || end-start > maxKernelSpan {
		return because(ErrBadKernel, "kernel spans [%#x, %#x)", start, end)
	}
	if start < highRAMStart {
		return because(ErrBadKernel, "kernel starts at %#x, below 1 MiB", start)
	}
	if _, err := mem.Slice(start, end-start); err != nil {
		return because(ErrTooSmall, "kernel needs memory up to %#x", end)
	}
	return nil
}
