package artifact

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// window is the largest match distance of packed files, and so the memory that
// unpacking one takes.
const window = 8 << 20

// Pack compresses b with zstd. The result depends only on b and on the version
// of the compressing module.
func Pack(b []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("artifact: pack: %w", err)
	}
	defer enc.Close()
	return enc.EncodeAll(b, nil), nil
}

// Unpack writes what Pack compressed to w. It writes no more than size bytes;
// when there are more or fewer, it is an error.
func Unpack(w io.Writer, packed []byte, size int64) error {
	dec, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return fmt.Errorf("artifact: unpack: %w", err)
	}
	defer dec.Close()
	n, err := io.Copy(w, io.LimitReader(dec, size))
	if err != nil {
		return fmt.Errorf("artifact: unpack: %w", err)
	}
	if n < size {
		return fmt.Errorf("artifact: unpack: %d bytes instead of %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	var one [1]byte
	if _, err := io.ReadFull(dec, one[:]); err != io.EOF {
		return fmt.Errorf("artifact: unpack: more than %d bytes", size)
	}
	return nil
}
