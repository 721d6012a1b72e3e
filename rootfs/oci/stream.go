package oci

import (
	"bufio"
	"bytes"
	"context"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that decompressing zstd takes.
const maxWindow = 32 << 20

// stream is one layer of an image that is being converted.
type stream struct {
	blob     *blob
	diffID   string
	consumed func(n int64) // bytes of the blob
}

// open gives the layer's tar while the blob is still arriving.
func (s *stream) open(ctx context.Context) (io.ReadCloser, error) {
	r, closer, err := decompress(bufio.NewReaderSize(s.blob.reader(ctx, s.consumed), copyChunk))
	if err != nil {
		return nil, err
	}
	return &unpacked{r, closer}, nil
}

type unpacked struct {
	io.Reader
	close func()
}

func (u *unpacked) Close() error {
	u.close()
	return nil
}

// decompress recognizes the compression by its magic number: media types are
// often wrong, and the digest of the result is checked anyway.
func decompress(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case isGzip(magic):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case isZstd(magic):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

func isGzip(magic []byte) bool { return bytes.HasPrefix(magic, []byte{0x1f, 0x8b}) }

// isZstd recognizes a frame, and a skippable one, with which some writers begin.
func isZstd(magic []byte) bool {
	return bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
}
