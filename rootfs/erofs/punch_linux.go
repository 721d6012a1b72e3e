package erofs

import (
	"os"
	"syscall"
)

// punch frees the disk space of a part of f, which reads as zeros afterwards. ok is
// false when the file system cannot do that.
func punch(f *os.File, off, n int64) (ok bool) {
	const keepSize, punchHole = 1, 2 // FALLOC_FL_*
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err2 := conn.Control(func(fd uintptr) {
		for {
			err = syscall.Fallocate(int(fd), keepSize|punchHole, off, n)
			if err != syscall.EINTR {
				return
			}
		}
	})
	return err == nil && err2 == nil
}
