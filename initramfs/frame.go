package initramfs

import (
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdEnd returns where the zstd frame at start ends (RFC 8878, section 3.1.1),
// since the decompressor reads ahead and cannot tell. Blocks are skipped, not
// decompressed.
func zstdEnd(r io.ReaderAt, start, size int64) (int64, error) {
	var buf [zstd.HeaderMaxSize]byte
	n, err := r.ReadAt(buf[:min(int64(len(buf)), size-start)], start)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	var h zstd.Header
	if err := h.Decode(buf[:n]); err != nil {
		return 0, corrupt(start, "zstd: %v", err)
	}
	off := start + int64(h.HeaderSize)
	for {
		var b [3]byte
		if size-off < int64(len(b)) {
			return 0, corrupt(off, "zstd frame ends before its last block")
		}
		if _, err := r.ReadAt(b[:], off); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		// Bit 0: last block; bits 1 and 2: kind; the rest: length.
		v := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
		length := v >> 3
		switch v >> 1 & 3 {
		case 1: // one byte, repeated
			length = 1
		case 3:
			return 0, corrupt(off, "zstd block of a reserved kind")
		}
		off += int64(len(b)) + length
		if v&1 != 0 {
			break
		}
	}
	if h.HasCheckSum {
		off += 4
	}
	if off > size {
		return 0, corrupt(start, "zstd frame is cut short")
	}
	return off, nil
}
