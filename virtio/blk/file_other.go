//go:build !linux

package blk

func isReadOnly(int) (bool, error) { return false, nil }

func (b *File) preadv(bufs [][]byte, off int64) (int, error) {
	n, err := b.f.ReadAt(bufs[0], off)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (b *File) pwritev(bufs [][]byte, off int64) (int, error) { return b.f.WriteAt(bufs[0], off) }

// ReadNowait returns ErrNoNowait.
func (b *File) ReadNowait([][]byte, int64) (int, error) { return 0, ErrNoNowait }

// WriteNowait returns ErrNoNowait.
func (b *File) WriteNowait([][]byte, int64) (int, error) { return 0, ErrNoNowait }

// Flush syncs the file.
func (b *File) Flush() error { return b.f.Sync() }

// Discard does nothing.
func (b *File) Discard(off, n int64) error { return nil }

// WriteZeroes writes zeroes.
func (b *File) WriteZeroes(off, n int64, unmap bool) error { return b.writeZeroBuffers(off, n) }
