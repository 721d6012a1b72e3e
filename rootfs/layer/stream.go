package layer

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	pieceSize   = 256 << 10
	pieces      = 8        // read ahead of the entry at hand
	maxWindow   = 64 << 20 // of zstd: what a decoder may keep in memory
	inputBuffer = 256 << 10
)

// stream is the uncompressed bytes of a layer. A goroutine of its own unpacks and
// hashes them, ahead of the reader; close ends it.
type stream struct {
	full   chan []byte
	empty  chan []byte
	cur    []byte // the rest of the piece at hand
	piece  []byte // the whole of it
	n      int64  // bytes read
	limit  int64  // of n
	broken error  // what Read has returned

	cancel context.CancelFunc
	done   chan struct{}
	err    error     // set before full is closed
	sum    hash.Hash // nil when the digest does not matter
}

// counter counts the bytes of a layer's stream as it has them, and ends it with ctx.
type counter struct {
	ctx context.Context
	r   io.Reader
	add func(n int)
	err error // of r, other than its end
}

func (c *counter) Read(p []byte) (int, error) {
	if c.err = c.ctx.Err(); c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	c.add(n)
	if err != io.EOF {
		c.err = err
	}
	return n, err
}

// openStream opens a layer. add is called, from the stream's goroutine, for what was
// read of it.
func openStream(ctx context.Context, l *Layer, limit int64, add func(n int)) (*stream, error) {
	if l.Open == nil {
		return nil, fmt.Errorf("no Open: %w", errors.ErrUnsupported)
	}
	ctx, cancel := context.WithCancel(ctx)
	rc, err := l.Open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{
		full: make(chan []byte, pieces), empty: make(chan []byte, pieces),
		cancel: cancel, done: make(chan struct{}), limit: limit,
	}
	if l.DiffID != "" {
		s.sum = sha256.New()
	}
	for range pieces {
		s.empty <- make([]byte, pieceSize)
	}
	go func() {
		defer close(s.done)
		defer close(s.full)
		s.err = s.unpack(ctx, l.Compression, &counter{ctx: ctx, r: rc, add: add})
		if err := rc.Close(); s.err == nil && err != nil {
			s.err = err
		}
	}()
	return s, nil
}

// unpack fills the pieces.
func (s *stream) unpack(ctx context.Context, c Compression, r *counter) (err error) {
	defer func() {
		// The decoders are given bytes of others.
		if p := recover(); p != nil {
			err = fmt.Errorf("decoder: %v: %w", p, ErrFormat)
		}
	}()
	bad := func(err error) error {
		if r.err != nil {
			return r.err // the bytes could not be had
		}
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	in := bufio.NewReaderSize(r, inputBuffer)
	var src io.Reader
	switch c {
	case None:
		src = in
	case Gzip:
		z, err := gzip.NewReader(in)
		if err != nil {
			return bad(err)
		}
		defer z.Close()
		src = z
	case Zstd:
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return bad(err)
		}
		defer z.Close()
		src = z
	default:
		return fmt.Errorf("compression %d: %w", c, errors.ErrUnsupported)
	}
	for {
		var p []byte
		select {
		case p = <-s.empty:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := fill(src, p)
		if n > 0 {
			if s.sum != nil {
				s.sum.Write(p[:n])
			}
			s.full <- p[:n] // has room for all pieces
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return bad(err)
		}
	}
}

// fill reads until p is full. Unlike io.ReadFull it keeps a stream that was cut
// short apart from one that has ended.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.read(p)
	if err != nil && err != io.EOF {
		s.broken = err
	}
	return n, err
}

func (s *stream) read(p []byte) (int, error) {
	if len(s.cur) == 0 {
		if s.piece != nil {
			s.empty <- s.piece[:pieceSize]
			s.piece = nil
		}
		piece, ok := <-s.full
		if !ok {
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		s.piece, s.cur = piece, piece
	}
	n := copy(p, s.cur)
	s.cur = s.cur[n:]
	if s.n += int64(n); s.n > s.limit {
		return n, fmt.Errorf("uncompressed size: %w", ErrLimit)
	}
	return n, nil
}

// finish reads what is left, and compares the digest.
func (s *stream) finish(diffID string) error {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	if s.sum == nil {
		return nil
	}
	if got := "sha256:" + hex.EncodeToString(s.sum.Sum(nil)); got != diffID {
		return fmt.Errorf("%w: uncompressed stream is %s, expected %s", ErrDigest, got, diffID)
	}
	return nil
}

// close ends the goroutine and waits for it.
func (s *stream) close() {
	s.cancel()
	<-s.done
}
