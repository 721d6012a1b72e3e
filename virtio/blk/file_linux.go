package blk

import (
	"errors"

	"golang.org/x/sys/unix"
)

// maxIovecs is UIO_MAXIOV of the kernel.
const maxIovecs = 1024

func isReadOnly(fd int) (bool, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return flags&unix.O_ACCMODE == unix.O_RDONLY, err
}

func (b *File) preadv(bufs [][]byte, off int64) (int, error) {
	for {
		n, err := unix.Preadv(b.fd, bufs[:min(len(bufs), maxIovecs)], off)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (b *File) pwritev(bufs [][]byte, off int64) (int, error) {
	for {
		n, err := unix.Pwritev(b.fd, bufs[:min(len(bufs), maxIovecs)], off)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// ReadNowait reads what is in the page cache (RWF_NOWAIT).
func (b *File) ReadNowait(bufs [][]byte, off int64) (int, error) {
	if b.noNowaitRead.Load() {
		return 0, ErrNoNowait
	}
	n, err := unix.Preadv2(b.fd, bufs[:min(len(bufs), maxIovecs)], off, unix.RWF_NOWAIT)
	return nowaitResult(n, err, &b.noNowaitRead)
}

// WriteNowait writes if that needs no waiting, which few file systems can tell.
func (b *File) WriteNowait(bufs [][]byte, off int64) (int, error) {
	if b.noNowaitWrite.Load() {
		return 0, ErrNoNowait
	}
	n, err := unix.Pwritev2(b.fd, bufs[:min(len(bufs), maxIovecs)], off, unix.RWF_NOWAIT)
	return nowaitResult(n, err, &b.noNowaitWrite)
}

func nowaitResult(n int, err error, not interface{ Store(bool) }) (int, error) {
	switch err {
	case nil:
		return n, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, ErrWouldBlock
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL:
		not.Store(true)
		return 0, ErrNoNowait
	}
	return 0, err
}

// Flush is fdatasync.
func (b *File) Flush() error {
	for {
		if err := unix.Fdatasync(b.fd); err != unix.EINTR {
			return err
		}
	}
}

// Discard punches a hole. A file system that has no holes keeps the data.
func (b *File) Discard(off, n int64) error {
	err := b.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// WriteZeroes zeroes a range in the file system's metadata, or by writing.
func (b *File) WriteZeroes(off, n int64, unmap bool) error {
	const hole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	const zero = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
	modes := [2]uint32{zero, hole}
	if unmap {
		modes = [2]uint32{hole, zero}
	}
	for _, mode := range modes {
		if mode == zero && b.noZeroRange.Load() {
			continue
		}
		err := b.fallocate(mode, off, n)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		if mode == zero {
			b.noZeroRange.Store(true)
		}
	}
	return b.writeZeroBuffers(off, n)
}

func (b *File) fallocate(mode uint32, off, n int64) error {
	for {
		if err := unix.Fallocate(b.fd, mode, off, n); err != unix.EINTR {
			return err
		}
	}
}
