package kernel

import (
	_ "embed"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

//go:embed vmlinux.zst
var compressed []byte

//go:embed config/vmlinux.config
var config string

// Release is what uname -r prints in the guest.
func Release() string { return imageRelease }

// Version names the exact source package that the kernel was built from.
func Version() string { return imageVersion }

// Digest is the SHA-256 of the embedded, compressed kernel, in hexadecimal. It
// identifies the kernel, for example in the key of a snapshot cache.
func Digest() string { return imageDigest }

// Config is the complete configuration that the kernel was built with, in the
// format of a .config file. A guest finds the same text in /proc/config.gz.
func Config() string { return config }

// ELF decompresses the kernel and returns the vmlinux file. The slice is the
// caller's. This costs some tens of milliseconds; use [Open] to start machines.
//
// It is an ELF64 executable with a PVH note, so other monitors can start it too.
func ELF() ([]byte, error) {
	b, err := decompress()
	if err != nil {
		return nil, &OpError{Op: "decompress", Err: err}
	}
	return b, nil
}

func decompress() ([]byte, error) {
	// One goroutine: the image is one frame, more would only wait.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxELFSize))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	// The frame carries a checksum of its content, which DecodeAll compares.
	out, err := dec.DecodeAll(compressed, make([]byte, 0, elfSize))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(out) != elfSize {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrCorrupt, len(out), elfSize)
	}
	return out, nil
}
