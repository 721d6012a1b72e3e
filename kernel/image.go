package kernel

import (
	"errors"
	"os"
)

// Image is the kernel as a file of guest physical memory. Its fields are set by
// [Open] and must not be changed. Several machines may share one Image: map it
// privately, read it with ReadAt, and leave the file's offset alone.
type Image struct {
	// File holds the image from offset 0; it is open for reading only. What
	// follows Size in it belongs to the cache and must not reach a guest.
	File *os.File

	// Base is the guest physical address of the byte at offset 0, a multiple of 4096.
	Base uint64

	// Size is the length of the image in File in bytes, a multiple of 4096.
	Size int64

	// MemSize is how many bytes the kernel takes from Base on, a multiple of 4096
	// and at least Size. What lies past Size is .bss and must be zero.
	MemSize uint64

	// Entry is the guest physical address of the 64-bit entry point.
	Entry uint64

	// Version names the source package that the kernel was built from.
	Version string
}

// Close closes File. Mappings made from it stay valid. A second Close does nothing.
func (i *Image) Close() error {
	if err := i.File.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return opError("close", i.File.Name(), err)
	}
	return nil
}
