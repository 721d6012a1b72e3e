//go:build unix

package volume

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile opens a file and locks it, shared or alone, without waiting.
func lockFile(path string, alone bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if alone {
		how = unix.LOCK_EX
	}
	for {
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, ErrInUse
		}
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	return f, nil
}

func isNotEmpty(err error) bool { return errors.Is(err, unix.ENOTEMPTY) }

// fileID tells files apart.
type fileID struct{ dev, ino uint64 }

// blocks is what a file takes on disk, and whether it has but one name.
func blocks(st fs.FileInfo) (id fileID, bytes int64, once bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return id, st.Size(), true
	}
	return fileID{uint64(s.Dev), s.Ino}, s.Blocks * 512, st.IsDir() || s.Nlink == 1
}
