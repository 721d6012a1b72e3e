package initramfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// headerSize is that of a newc header: a magic number of six characters and
	// thirteen fields of eight hexadecimal digits (see the kernel's
	// Documentation/driver-api/early-userspace/buffer-format.rst).
	headerSize = 110
	// maxName is the longest name with its terminating zero that the kernel
	// takes (PATH_MAX).
	maxName = 4096
	trailer = "TRAILER!!!"
	// maxUnpacked bounds the work that a small compressed file can cause, and
	// is more than a guest of ordinary size could unpack.
	maxUnpacked = 2 << 30
	// maxWindow is the largest zstd window that the kernel accepts.
	maxWindow = 128 << 20
)

var (
	magicNewc = []byte("070701")
	magicCRC  = []byte("070702")
	magicGzip = []byte{0x1f, 0x8b}
	magicZstd = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// Check walks an archive that somebody else made, of size bytes, the way the
// kernel will: one or more newc archives in a row, with zeros between them,
// each of which may be compressed with gzip or zstd. Damage gives an error that
// is ErrCorrupt and says where; no guest is needed to find out. Check reads a
// compressed archive as a whole, of others only the headers.
//
// It does not say whether there is an /init in the archive, nor whether it runs.
func Check(r io.ReaderAt, size int64) error {
	c := &checker{r: r, size: size, left: maxUnpacked}
	if err := c.archives(); err != nil {
		return &Error{"check", err}
	}
	return nil
}

type checker struct {
	r    io.ReaderAt
	size int64
	left int64 // bytes that compressed parts may still unpack to
}

func corrupt(off int64, format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrCorrupt, off, fmt.Sprintf(format, args...))
}

// archives walks the parts of the file.
func (c *checker) archives() error {
	if c.size <= 0 {
		return fmt.Errorf("%w: empty", ErrCorrupt)
	}
	found := false
	for off := int64(0); ; {
		var err error
		if off, err = c.skipZeros(off); err != nil {
			return err
		}
		if off >= c.size {
			if !found {
				return fmt.Errorf("%w: only zeros", ErrCorrupt)
			}
			return nil
		}
		var magic [6]byte
		if n, err := c.r.ReadAt(magic[:min(6, c.size-off)], off); err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			return err
		}
		switch {
		case bytes.Equal(magic[:], magicNewc), bytes.Equal(magic[:], magicCRC):
			if off%4 != 0 {
				return corrupt(off, "archive does not start at a multiple of 4")
			}
			s := &sectionStream{r: c.r, off: off, end: c.size}
			if err := walk(s, off); err != nil {
				return err
			}
			off = s.off
		case bytes.HasPrefix(magic[:], magicGzip), bytes.HasPrefix(magic[:], magicZstd):
			if off, err = c.compressed(off, magic[0] == magicGzip[0]); err != nil {
				return err
			}
		default:
			return corrupt(off, "neither a newc archive nor gzip nor zstd (starts with % x)", magic)
		}
		found = true
	}
}

// skipZeros returns the offset of the next byte that is not zero.
func (c *checker) skipZeros(off int64) (int64, error) {
	var buf [4096]byte
	for off < c.size {
		n, err := c.r.ReadAt(buf[:min(int64(len(buf)), c.size-off)], off)
		for i, b := range buf[:n] {
			if b != 0 {
				return off + int64(i), nil
			}
		}
		off += int64(n)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	return off, nil
}

// compressed walks one compressed part and returns where it ends.
func (c *checker) compressed(start int64, isGzip bool) (end int64, err error) {
	// The decompressors must not read past the end of their part.
	src := &countingReader{r: bufio.NewReaderSize(io.NewSectionReader(c.r, start, c.size-start), 1<<16)}
	var plain io.Reader
	if isGzip {
		z, err := gzip.NewReader(src)
		if err != nil {
			return 0, corrupt(start, "gzip: %v", err)
		}
		z.Multistream(false)
		plain = z
	} else {
		if end, err = zstdEnd(c.r, start, c.size); err != nil {
			return 0, err
		}
		z, err := zstd.NewReader(io.NewSectionReader(c.r, start, end-start), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return 0, corrupt(start, "zstd: %v", err)
		}
		defer z.Close()
		plain = z
	}
	limited := &limitReader{r: plain, left: &c.left}
	s := &plainStream{r: bufio.NewReaderSize(limited, 1<<16)}
	// Inside, archives may follow each other as well.
	for found := false; ; found = true {
		switch err := s.skipZeros(); {
		case errors.Is(err, io.EOF):
			if !found {
				return 0, corrupt(start, "compressed part is empty")
			}
			if isGzip {
				end = start + src.n
			}
			return end, nil
		case err != nil:
			return 0, unpackError(start, err)
		}
		if err := walk(s, s.off); err != nil {
			if errors.Is(err, ErrCorrupt) {
				return 0, fmt.Errorf("in the compressed part at byte %d: %w", start, err)
			}
			return 0, unpackError(start, err)
		}
	}
}

func unpackError(start int64, err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	return corrupt(start, "unpack: %v", err)
}

// stream is what walk reads: a position that only moves forward.
type stream interface {
	io.Reader
	pos() int64
	skip(n int64) error // io.ErrUnexpectedEOF when there are fewer than n bytes
}

// walk checks one newc archive up to and with its trailer. base is the offset
// of its beginning, to which its records are aligned.
func walk(s stream, base int64) error {
	var header [headerSize]byte
	var name [maxName]byte
	for {
		at := s.pos()
		if err := readFull(s, header[:]); err != nil {
			return streamError(at, "header", err)
		}
		if !bytes.Equal(header[:6], magicNewc) && !bytes.Equal(header[:6], magicCRC) {
			return corrupt(at, "no record header")
		}
		fileSize, err1 := field(header[:], 6)
		nameSize, err2 := field(header[:], 11)
		if err := errors.Join(err1, err2); err != nil {
			return corrupt(at, "header field is not hexadecimal")
		}
		if nameSize < 1 || nameSize > maxName {
			return corrupt(at, "name of %d bytes", nameSize)
		}
		if err := readFull(s, name[:nameSize]); err != nil {
			return streamError(at, "name", err)
		}
		text := name[:nameSize-1]
		if name[nameSize-1] != 0 || bytes.IndexByte(text, 0) >= 0 {
			return corrupt(at, "name does not end where its length says")
		}
		if string(text) == trailer {
			if fileSize != 0 {
				return corrupt(at, "trailer with content")
			}
			return nil
		}
		// Name and content are each padded to four bytes.
		if err := s.skip(padding(s.pos() - base)); err != nil {
			return streamError(at, "padding", err)
		}
		if err := s.skip(fileSize); err != nil {
			return streamError(at, fmt.Sprintf("content of %q (%d bytes)", text, fileSize), err)
		}
		if err := s.skip(padding(s.pos() - base)); err != nil {
			return streamError(at, "padding", err)
		}
	}
}

func readFull(s stream, p []byte) error {
	_, err := io.ReadFull(s, p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func streamError(at int64, what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt(at, "ends within %s, before the trailer", what)
	}
	return err
}

// field reads the n-th number of a header.
func field(header []byte, n int) (int64, error) {
	v, err := strconv.ParseUint(string(header[6+8*n:6+8*n+8]), 16, 32)
	return int64(v), err
}

func padding(off int64) int64 { return -off & 3 }
