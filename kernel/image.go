package kernel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/hutchvm/hutch/internal/cachefile"
)

// Image is the kernel as a file of guest physical memory. Its fields are set by
// [Open] and must not be changed. Several machines may share one Image: map it
// privately, read it with ReadAt, and leave the file's offset alone.
type Image struct {
	// File holds the image and nothing else. It is open for reading only.
	File *os.File

	// Base is the guest physical address of the byte at offset 0, a multiple of 4096.
	Base uint64

	// Size is the length of File in bytes, a multiple of 4096.
	Size int64

	// MemSize is how many bytes the kernel takes from Base on, a multiple of 4096
	// and at least Size. What lies past Size is .bss and must be zero.
	MemSize uint64

	// Entry is the guest physical address of the 64-bit entry point.
	Entry uint64

	// Parts are the parts of File that hold anything, in ascending order; what
	// lies between them is zero.
	Parts []Part

	// Version names the source package that the kernel was built from.
	Version string
}

// Part is a part of an Image.
type Part struct {
	// Offset and Size are in bytes, multiples of 4096.
	Offset, Size int64

	// Shared says that the kernel hardly writes to it, so that mapping the file
	// privately saves memory. Other parts are written all over at boot.
	Shared bool
}

// imageParts are the image's .text, .rodata, and everything that is written
// or freed at boot. A test compares them with the ELF file's sections.
var imageParts = []Part{
	{Offset: 0, Size: 0xa01000, Shared: true},
	{Offset: 0xc00000, Size: 0x17e000},
	{Offset: 0xe00000, Size: flatSize - 0xe00000},
}

// Open returns the embedded kernel as a flat image, from a file in the directory
// cacheDir, which it creates if need be. The first call unpacks the image there;
// later calls, in any process, find it by a name that contains its digest and
// check in one system call that nobody cut it short or wrote to it since. An
// entry that was damaged so is made anew. Any number of processes and goroutines
// may call Open at once.
//
// What is in the cache runs as the guest's kernel: the directory must not be
// writable by anybody whom the caller does not trust.
//
// The caller closes the Image. Errors are of type *OpError.
func Open(cacheDir string) (*Image, error) {
	digest := flatSum()
	f, err := cachefile.Get(cacheDir, "vmlinux-"+imageRelease, digest, flatSize, fillFlat)
	if errors.Is(err, cachefile.ErrMismatch) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, &OpError{Op: "open", Err: err}
	}
	return &Image{
		File:    f,
		Base:    imageBase,
		Size:    flatSize,
		MemSize: imageMemSize,
		Entry:   imageEntry,
		Parts:   imageParts,
		Version: imageVersion,
	}, nil
}

// Close closes File. Mappings made from it stay valid. A second Close does nothing.
func (i *Image) Close() error {
	if err := i.File.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return &OpError{Op: "close", Err: err}
	}
	return nil
}

// flatSum is the digest that build.sh found for the flat image.
func flatSum() (sum cachefile.Digest) {
	// The constant is well-formed, which a test checks; if it were not, no
	// content would match and Open would say so.
	b, _ := hex.DecodeString(flatDigest)
	copy(sum[:], b)
	return sum
}

// fillFlat writes the flat image into the empty file w.
func fillFlat(w *os.File) error {
	vmlinux, err := decompress()
	if err != nil {
		return err
	}
	r := bytes.NewReader(vmlinux)
	l, err := parseELF(r, r.Size())
	if err != nil {
		return err
	}
	if err := w.Truncate(int64(l.FileSize)); err != nil {
		return err
	}
	return l.flatten(w, r)
}
