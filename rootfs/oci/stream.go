package oci

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow bounds the memory that decompressing zstd takes.
	maxWindow = 32 << 20

	aheadChunk  = 256 << 10
	aheadChunks = 6
)

// stream is one layer, uncompressed and verified.
type stream struct {
	blob     *blob
	diffID   string
	budget   *atomic.Int64 // uncompressed bytes that the image may still have
	consumed func(n int64) // bytes of the blob

	mu       sync.Mutex
	verified bool
	err      error // what a reader that went to the end found
}

// open reads the layer's tar, whose digest is checked at its end: a reader that
// gets io.EOF has read what the image's configuration promises. Close reads
// the padding at the end of a tar, which tar readers leave. Decompression runs
// ahead in a goroutine, which ends with Close.
func (s *stream) open(ctx context.Context) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{ctx: ctx, cancel: cancel, full: make(chan chunk, aheadChunks), free: make(chan []byte, aheadChunks+2), ended: make(chan struct{})}
	for range aheadChunks + 2 {
		a.free <- nil // made when first needed: most layers are small
	}
	go func() {
		defer close(a.ended)
		defer close(a.full)
		err := s.pump(ctx, a)
		s.mu.Lock()
		s.verified = s.verified || err == nil
		if err != nil && s.err == nil && ctx.Err() == nil {
			s.err = err
		}
		s.mu.Unlock()
		if err == nil {
			err = io.EOF
		}
		select {
		case a.full <- chunk{err: err}:
		case <-ctx.Done():
		}
	}()
	return a, nil
}

// pump decompresses the whole layer into a.
func (s *stream) pump(ctx context.Context, a *ahead) error {
	r, closer, err := decompress(bufio.NewReaderSize(s.blob.reader(ctx, s.consumed), copyChunk))
	if err != nil {
		return s.explain(ctx, err)
	}
	defer closer()
	h := sha256.New()
	for {
		buf, err := a.buffer()
		if err != nil {
			return err
		}
		n := 0
		for n < len(buf) && err == nil {
			var k int
			k, err = r.Read(buf[n:])
			n += k
		}
		if n > 0 {
			h.Write(buf[:n])
			if s.budget.Add(-int64(n)) < 0 {
				return fail(ErrLimit, "more than %d bytes uncompressed", int64(MaxImage))
			}
			select {
			case a.full <- chunk{data: buf[:n], whole: buf}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		switch {
		case err == io.EOF:
			return s.check(h)
		case err != nil:
			return s.explain(ctx, err)
		}
	}
}

func (s *stream) check(h hash.Hash) error {
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != s.diffID {
		return s.damaged(fail(ErrDigest, "layer %s has the uncompressed digest %s, the configuration says %s", s.blob.desc.Digest, got, s.diffID))
	}
	return nil
}

func (s *stream) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errDamaged) {
		return err
	}
	return s.damaged(fail(ErrInvalidImage, "layer %s: decompressing: %w", s.blob.desc.Digest, err))
}

// damaged marks errors of content that was on disk before.
func (s *stream) damaged(err error) error {
	if s.blob.resume {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// finish makes sure that the layer was verified, reading it if nobody has.
func (s *stream) finish(ctx context.Context) error {
	s.mu.Lock()
	verified := s.verified
	s.mu.Unlock()
	if err := s.failure(); verified || err != nil {
		return err
	}
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// failure is why the layer could not be read to its end.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// decompress recognizes the compression by its magic number; media types are
// often wrong, and the digest of the result is checked anyway.
func decompress(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// ahead hands chunks from the pump to the reader.
type ahead struct {
	ctx    context.Context
	cancel context.CancelFunc
	full   chan chunk
	free   chan []byte
	ended  chan struct{}
	cur    chunk
	err    error
}

type chunk struct {
	data  []byte // what is left to read
	whole []byte // the buffer, to be used again
	err   error
}

// buffer waits for one that the reader is done with.
func (a *ahead) buffer() ([]byte, error) {
	select {
	case b := <-a.free:
		if b == nil {
			b = make([]byte, aheadChunk)
		}
		return b, nil
	case <-a.ctx.Done():
		return nil, context.Cause(a.ctx)
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.cur.data) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.cur.whole != nil {
			a.free <- a.cur.whole
			a.cur = chunk{}
		}
		c, ok := <-a.full
		if !ok {
			a.err = context.Cause(a.ctx)
			if a.err == nil {
				a.err = io.ErrUnexpectedEOF
			}
			return 0, a.err
		}
		a.cur, a.err = c, c.err
	}
	n := copy(p, a.cur.data)
	a.cur.data = a.cur.data[n:]
	return n, nil
}

// maxPadding is how much Close reads to get to the end of the layer.
const maxPadding = 1 << 20

// Close ends the decompression and waits for its goroutine.
func (a *ahead) Close() error {
	for left := maxPadding; left > 0 && a.err == nil; {
		n, _ := a.Read(make([]byte, 32<<10)) // an error stays in a.err
		left -= n
	}
	a.cancel()
	<-a.ended
	return nil
}
