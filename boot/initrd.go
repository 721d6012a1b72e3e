package boot

import (
	"os"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Initrd is where an initramfs lies in guest memory.
type Initrd struct {
	GPA, Size uint64
}

// MapInitrd maps an initramfs of size bytes copy-on-write, as high as possible
// in the RAM below the hole and out of the kernel's way. The file must not
// change while a machine maps it; the caller may close it.
func MapInitrd(mem *guestmem.Memory, k Kernel, f *os.File, size uint64) (Initrd, error) {
	const op = "map initramfs"
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
	if err := mem.MapFile(top-span, f, 0, span); err != nil {
		return Initrd{}, opErr(op, err)
	}
	return Initrd{GPA: top - span, Size: size}, nil
}
