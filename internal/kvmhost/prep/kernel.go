package prep

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/klauspost/compress/zstd"
)

// Offsets in a bzImage, from the Linux x86 boot protocol (its setup header).
const (
	offSetupSects    = 0x1f1
	offMagic         = 0x202
	offPayloadOffset = 0x248
	offPayloadLength = 0x24c
	headerEnd        = 0x250
	sectorSize       = 512
)

// maxKernel bounds an unpacked kernel; Debian's is about 60 MB.
const maxKernel = 512 << 20

// ErrKernelFormat is returned for a kernel image that cannot be unpacked.
var ErrKernelFormat = errors.New("not a bzImage with an ELF kernel inside")

// unpackKernel takes the ELF kernel out of a bzImage. An emulator that is given
// the bzImage itself spends a second of emulated time on decompression.
func unpackKernel(image []byte) ([]byte, error) {
	if len(image) < headerEnd || string(image[offMagic:offMagic+4]) != "HdrS" {
		return nil, ErrKernelFormat
	}
	sects := uint64(image[offSetupSects])
	if sects == 0 {
		sects = 4 // the protocol's meaning of zero
	}
	start := (sects+1)*sectorSize + uint64(binary.LittleEndian.Uint32(image[offPayloadOffset:]))
	length := uint64(binary.LittleEndian.Uint32(image[offPayloadLength:]))
	if start+length > uint64(len(image)) || length < 8 {
		return nil, fmt.Errorf("%w: payload at %d+%d of %d bytes", ErrKernelFormat, start, length, len(image))
	}
	kernel, err := decompress(image[start : start+length])
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil || f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("%w: payload is no x86-64 ELF file", ErrKernelFormat)
	}
	return kernel, nil
}

// decompress unpacks a kernel's payload. Except for gzip it is followed by four
// bytes with the unpacked size, which a decompressor must leave alone.
func decompress(payload []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(payload, []byte("\xfd7zXZ\x00")):
		cmd := exec.Command("xz", "--decompress", "--stdout", "--single-stream")
		cmd.Stdin = bytes.NewReader(payload)
		out, err := cmd.Output()
		// xz complains about the trailing size after having unpacked all.
		if size := binary.LittleEndian.Uint32(payload[len(payload)-4:]); len(out) == int(size) {
			return out, nil
		}
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w: xz: install the package xz-utils", ErrNoTool)
		}
		return nil, fmt.Errorf("%w: xz gave %d bytes: %v", ErrKernelFormat, len(out), err)
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrKernelFormat, err)
		}
		r.Multistream(false)
		return readLimited(r)
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(bytes.NewReader(payload[:len(payload)-4]), zstd.WithDecoderMaxMemory(maxKernel))
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrKernelFormat, err)
		}
		defer r.Close()
		return readLimited(r)
	}
	return nil, fmt.Errorf("%w: compression begins with %x", ErrKernelFormat, payload[:6])
}

func readLimited(r io.Reader) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, maxKernel+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKernelFormat, err)
	}
	if len(out) > maxKernel {
		return nil, fmt.Errorf("%w: over %d bytes", ErrKernelFormat, maxKernel)
	}
	return out, nil
}
