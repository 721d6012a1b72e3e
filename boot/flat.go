package boot

import (
	"os"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Flat is a kernel in a file that is laid out as it lies in memory.
type Flat struct {
	// File must not change while a machine that maps a part of it lives. The
	// caller may close it after LoadFlat.
	File *os.File
	// Base is the guest physical address of the file's first byte.
	Base uint64
	// Size is the length of the file in bytes.
	Size uint64
	// Span is how much memory the kernel takes from Base on, .bss included.
	Span uint64
	// Entry is the guest physical address of the 64-bit entry point.
	Entry uint64
	// Segments are the parts of the file that hold anything; none means all of it.
	Segments []FlatSegment
}

// FlatSegment is a part of a Flat kernel: Size bytes at Offset.
type FlatSegment struct {
	Offset, Size uint64
	// Shared segments are mapped copy-on-write, so that machines share what
	// they do not write. Both numbers must be multiples of 4096. The others are
	// copied, which is cheaper for what the kernel writes anyway.
	Shared bool
}

// LoadFlat puts f into guest memory.
func LoadFlat(mem *guestmem.Memory, f Flat) (Kernel, error) {
	const op = "load kernel"
	if f.Base%pageSize != 0 || f.Size == 0 || f.Size > f.Span {
		return Kernel{}, opErr(op, because(ErrBadKernel, "base %#x, %d bytes in file, %d in memory", f.Base, f.Size, f.Span))
	}
	if err := checkPlacement(mem, f.Base, f.Base+f.Span); err != nil {
		return Kernel{}, opErr(op, err)
	}
	if f.Entry < f.Base || f.Entry >= f.Base+f.Size {
		return Kernel{}, opErr(op, because(ErrBadKernel, "entry point %#x outside the kernel", f.Entry))
	}
	segments := f.Segments
	if len(segments) == 0 {
		segments = []FlatSegment{{Size: f.Size}}
	}
	for _, s := range segments {
		if s.Offset > f.Size || f.Size-s.Offset < s.Size {
			return Kernel{}, opErr(op, because(ErrBadKernel, "segment of %d bytes at %#x of %d", s.Size, s.Offset, f.Size))
		}
		var err error
		if s.Shared {
			err = mem.MapFile(f.Base+s.Offset, f.File, int64(s.Offset), s.Size)
		} else {
			err = readInto(mem, f.Base+s.Offset, s.Size, f.File, int64(s.Offset))
		}
		if err != nil {
			return Kernel{}, opErr(op, err)
		}
	}
	return Kernel{Entry: f.Entry, Start: f.Base, End: f.Base + f.Span}, nil
}
