package boot

import (
	"io"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Initrd is where an initramfs lies in guest memory.
type Initrd struct {
	GPA, Size uint64
}

// LoadInitrd copies an initramfs of size bytes into memory, as high as possible
// in the RAM below the hole and out of the kernel's way.
func LoadInitrd(mem *guestmem.Memory, k Kernel, r io.ReaderAt, size uint64) (Initrd, error) {
	const op = "load initramfs"
	var top uint64
	for _, r := range mem.Regions() {
		if r.GPA == 0 {
			top = r.Size
		}
	}
	span := pageUp(size)
	if span < size || span > top || top-span < max(k.End, highRAMStart) {
		return Initrd{}, opErr(op, because(ErrTooSmall, "initramfs of %d bytes does not fit above the kernel in %d", size, top))
	}
	if err := readInto(mem, top-span, size, r, 0); err != nil {
		return Initrd{}, opErr(op, err)
	}
	return Initrd{GPA: top - span, Size: size}, nil
}
