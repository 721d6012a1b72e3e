package blk

import (
	"io"
	"os"
	"sync/atomic"
)

// File is a raw disk image or a block device. Guest memory and file are
// connected by preadv and pwritev, with no buffer between.
//
// A size that is not a multiple of 512 is rounded up: the missing bytes of the
// last sector read as zero, and writing that sector makes the file longer.
type File struct {
	f        *os.File
	fd       int
	readOnly bool
	end      atomic.Int64 // bytes there were when last looked

	// When the file cannot tell whether it would block, it is not asked again.
	noNowaitRead, noNowaitWrite atomic.Bool
	noZeroRange                 atomic.Bool
}

// NewFile returns the disk in f. The caller keeps f open for as long as the
// device lives, and closes it; its file offset is not used. A file opened for
// reading only makes a read-only disk.
func NewFile(f *os.File) (*File, error) {
	b := &File{f: f, fd: int(f.Fd())}
	ro, err := isReadOnly(b.fd)
	if err != nil {
		return nil, &OpError{Op: "open", Err: err}
	}
	b.readOnly = ro
	if err := b.stat(); err != nil {
		return nil, &OpError{Op: "open", Err: err}
	}
	return b, nil
}

// stat looks how long the file is.
func (b *File) stat() error {
	fi, err := b.f.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	if !fi.Mode().IsRegular() {
		if size, err = b.f.Seek(0, io.SeekEnd); err != nil {
			return err
		}
	}
	b.end.Store(size)
	return nil
}

// Size looks at the file and returns its size rounded up to whole sectors.
func (b *File) Size() int64 {
	_ = b.stat() // the size that was known before is the best answer then
	return roundUp(b.end.Load())
}

// ReadOnly reports whether f was opened for reading only.
func (b *File) ReadOnly() bool { return b.readOnly }

// SerialWrites is true: the kernel holds the inode's lock over a buffered write.
func (b *File) SerialWrites() bool { return true }

// ReadAtv reads with preadv.
func (b *File) ReadAtv(bufs [][]byte, off int64) error {
	for {
		bufs = dropEmpty(bufs)
		if len(bufs) == 0 {
			return nil
		}
		n, err := b.preadv(bufs, off)
		if err != nil {
			return err
		}
		if n == 0 {
			return b.readPastEnd(bufs, off)
		}
		bufs, off = advance(bufs, n), off+int64(n)
	}
}

// readPastEnd gives zeroes for the rest of the last sector; more than that is
// missing when the file was truncated.
func (b *File) readPastEnd(bufs [][]byte, off int64) error {
	var n int64
	for _, p := range bufs {
		n += int64(len(p))
	}
	if off+n > b.Size() {
		return io.ErrUnexpectedEOF
	}
	for _, p := range bufs {
		clear(p)
	}
	return nil
}

// WriteAtv writes with pwritev.
func (b *File) WriteAtv(bufs [][]byte, off int64) error {
	for {
		bufs = dropEmpty(bufs)
		if len(bufs) == 0 {
			return nil
		}
		n, err := b.pwritev(bufs, off)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		bufs, off = advance(bufs, n), off+int64(n)
	}
}

// writeZeroBuffers is WriteZeroes for files that have no better way.
func (b *File) writeZeroBuffers(off, n int64) error {
	zero := make([]byte, min(n, 1<<20))
	for n > 0 {
		k, err := b.f.WriteAt(zero[:min(n, int64(len(zero)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(k), n-int64(k)
	}
	return nil
}

func dropEmpty(bufs [][]byte) [][]byte {
	for len(bufs) > 0 && len(bufs[0]) == 0 {
		bufs = bufs[1:]
	}
	return bufs
}

// advance drops the first n bytes, in place.
func advance(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 && len(bufs) > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}
