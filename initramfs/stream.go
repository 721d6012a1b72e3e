package initramfs

import (
	"bufio"
	"fmt"
	"io"
)

// sectionStream walks a file without reading what is skipped.
type sectionStream struct {
	r        io.ReaderAt
	off, end int64
}

func (s *sectionStream) pos() int64 { return s.off }

func (s *sectionStream) Read(p []byte) (int, error) {
	if s.off >= s.end {
		return 0, io.EOF
	}
	n, err := s.r.ReadAt(p[:min(int64(len(p)), s.end-s.off)], s.off)
	s.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (s *sectionStream) skip(n int64) error {
	if n > s.end-s.off {
		return io.ErrUnexpectedEOF
	}
	s.off += n
	return nil
}

// plainStream walks what a decompressor gives.
type plainStream struct {
	r   *bufio.Reader
	off int64
}

func (s *plainStream) pos() int64 { return s.off }

func (s *plainStream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.off += int64(n)
	return n, err
}

func (s *plainStream) skip(n int64) error {
	for n > 0 {
		step, err := s.r.Discard(int(min(n, 1<<30)))
		s.off += int64(step)
		n -= int64(step)
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// skipZeros moves to the next byte that is not zero; io.EOF when there is none.
func (s *plainStream) skipZeros() error {
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return s.r.UnreadByte()
		}
		s.off++
	}
}

// countingReader counts what a decompressor consumed. It is an io.ByteReader,
// so decompressors do not read ahead through buffers of their own.
type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countingReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// limitReader fails, rather than ends, when more than *left bytes come.
type limitReader struct {
	r    io.Reader
	left *int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	*l.left -= int64(n)
	if *l.left < 0 {
		return 0, fmt.Errorf("%w: unpacks to more than %d bytes", ErrTooLarge, int64(maxUnpacked))
	}
	return n, err
}
