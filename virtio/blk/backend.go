package blk

import (
	"errors"
	"io"
)

// SectorSize is the unit of the protocol (Virtio 1.2, 5.2.5).
const SectorSize = 512

// Errors that backends and the device use; test with errors.Is.
var (
	// ErrReadOnly: a write to a backend that cannot be written.
	ErrReadOnly = errors.New("backend is read-only")
	// ErrWouldBlock: a Nowait method cannot finish at once.
	ErrWouldBlock = errors.New("would block")
	// ErrNoNowait: the file below has no way to tell; the Nowait method will
	// not be called again for a while.
	ErrNoNowait = errors.New("not supported by the file")
)

// Backend is where a disk's bytes are. The device checks bounds before it
// calls: offsets and lengths are multiples of SectorSize within Size. Methods
// are called from several goroutines at once. The buffers are guest memory: they
// may change at any time, must not be kept, and the slice that lists them may be
// changed. The format of what is behind a backend is always given, never guessed
// from its content, which the guest can write.
type Backend interface {
	// ReadAtv fills all of bufs, in order, from byte off, or returns an error.
	ReadAtv(bufs [][]byte, off int64) error
	// WriteAtv writes all of bufs, in order, at byte off, or returns an error.
	WriteAtv(bufs [][]byte, off int64) error
	// Flush makes every write that returned durable.
	Flush() error
	// Discard says that n bytes at off are not needed. They may read as
	// anything that was there, or zero. It may do nothing.
	Discard(off, n int64) error
	// WriteZeroes makes n bytes at off zero; with unmap it should free space.
	WriteZeroes(off, n int64, unmap bool) error
	// Size returns the current size in bytes, a multiple of SectorSize.
	Size() int64
}

// Nowaiter is a Backend that can tell whether it would have to wait for a disk.
// What it can do at once is served without another goroutine. The methods return
// how many bytes they did, and ErrWouldBlock or ErrNoNowait with the rest undone.
type Nowaiter interface {
	ReadNowait(bufs [][]byte, off int64) (int, error)
	WriteNowait(bufs [][]byte, off int64) (int, error)
}

// readOnlyer is a Backend that knows that it cannot be written.
type readOnlyer interface{ ReadOnly() bool }

// serialWriter is a Backend that says that its writes exclude each other: handing it several
// at once only makes threads wait for a lock.
type serialWriter interface{ SerialWrites() bool }

// Memory is a disk in memory. The zero value is an empty one.
type Memory struct{ b []byte }

// NewMemory returns a disk of b, which is used in place; bytes after the last
// whole sector are not part of it. As on a real disk, a read that meets a
// write sees a mix of both.
func NewMemory(b []byte) *Memory { return &Memory{b[:len(b)/SectorSize*SectorSize]} }

// ReadAtv copies out.
func (m *Memory) ReadAtv(bufs [][]byte, off int64) error {
	_, err := m.ReadNowait(bufs, off)
	return err
}

// WriteAtv copies in.
func (m *Memory) WriteAtv(bufs [][]byte, off int64) error {
	_, err := m.WriteNowait(bufs, off)
	return err
}

// ReadNowait copies out.
func (m *Memory) ReadNowait(bufs [][]byte, off int64) (n int, err error) {
	if off < 0 || off > int64(len(m.b)) {
		return 0, io.ErrUnexpectedEOF
	}
	for _, b := range bufs {
		k := copy(b, m.b[off:])
		n, off = n+k, off+int64(k)
		if k < len(b) {
			return n, io.ErrUnexpectedEOF
		}
	}
	return n, nil
}

// WriteNowait copies in.
func (m *Memory) WriteNowait(bufs [][]byte, off int64) (n int, err error) {
	if off < 0 || off > int64(len(m.b)) {
		return 0, io.ErrShortWrite
	}
	for _, b := range bufs {
		k := copy(m.b[off:], b)
		n, off = n+k, off+int64(k)
		if k < len(b) {
			return n, io.ErrShortWrite
		}
	}
	return n, nil
}

// Flush does nothing.
func (m *Memory) Flush() error { return nil }

// Discard does nothing.
func (m *Memory) Discard(off, n int64) error { return nil }

// WriteZeroes clears.
func (m *Memory) WriteZeroes(off, n int64, unmap bool) error {
	if off < 0 || n < 0 || off > int64(len(m.b)) || n > int64(len(m.b))-off {
		return io.ErrShortWrite
	}
	clear(m.b[off : off+n])
	return nil
}

// Size is the length.
func (m *Memory) Size() int64 { return int64(len(m.b)) }

// ReaderAt is a read-only disk over an io.ReaderAt.
type ReaderAt struct {
	r    io.ReaderAt
	size int64
}

// NewReaderAt returns a disk of the first size bytes of r. A last sector that is
// not whole is filled up with zeroes. r must allow concurrent use, as its
// contract says.
func NewReaderAt(r io.ReaderAt, size int64) *ReaderAt { return &ReaderAt{r, max(size, 0)} }

// ReadAtv reads each buffer.
func (b *ReaderAt) ReadAtv(bufs [][]byte, off int64) error {
	for _, p := range bufs {
		want := int(min(int64(len(p)), max(b.size-off, 0)))
		if n, err := b.r.ReadAt(p[:want], off); n < want {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		clear(p[want:])
		off += int64(len(p))
	}
	return nil
}

// WriteAtv returns ErrReadOnly.
func (b *ReaderAt) WriteAtv([][]byte, int64) error { return ErrReadOnly }

// Flush does nothing.
func (b *ReaderAt) Flush() error { return nil }

// Discard returns ErrReadOnly.
func (b *ReaderAt) Discard(off, n int64) error { return ErrReadOnly }

// WriteZeroes returns ErrReadOnly.
func (b *ReaderAt) WriteZeroes(off, n int64, unmap bool) error { return ErrReadOnly }

// Size is the given size rounded up to whole sectors.
func (b *ReaderAt) Size() int64 { return roundUp(b.size) }

// ReadOnly is true.
func (b *ReaderAt) ReadOnly() bool { return true }

func roundUp(n int64) int64 { return (n + SectorSize - 1) / SectorSize * SectorSize }
