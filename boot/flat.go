package boot

import (
	"os"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Flat is a kernel in a file that is laid out as it lies in memory, so that
// its pages can be mapped instead of copied. The file must not change while a
// machine maps it.
type Flat struct {
	File *os.File
	// Base is the guest physical address of the file's first byte.
	Base uint64
	// Size is the length of the file in bytes.
	Size uint64
	// Span is how much memory the kernel takes from Base on, .bss included.
	Span uint64
	// Entry is the guest physical address of the 64-bit entry point.
	Entry uint64
}

// MapFlat maps f into guest memory copy-on-write. The mapping keeps the file's
// pages, the caller may close the file.
func MapFlat(mem *guestmem.Memory, f Flat) (Kernel, error) {
	const op = "map kernel"
	if f.Base%pageSize != 0 || f.Size == 0 || f.Size > f.Span {
		return Kernel{}, opErr(op, because(ErrBadKernel, "base %#x, %d bytes in file, %d in memory", f.Base, f.Size, f.Span))
	}
	if err := checkPlacement(mem, f.Base, f.Base+f.Span); err != nil {
		return Kernel{}, opErr(op, err)
	}
	if f.Entry < f.Base || f.Entry >= f.Base+f.Size {
		return Kernel{}, opErr(op, because(ErrBadKernel, "entry point %#x outside the kernel", f.Entry))
	}
	if err := mem.MapFile(f.Base, f.File, 0, pageUp(f.Size)); err != nil {
		return Kernel{}, opErr(op, err)
	}
	return Kernel{Entry: f.Entry, Start: f.Base, End: f.Base + f.Span}, nil
}
