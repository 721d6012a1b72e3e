package virtiotest

import (
	"os"

	"golang.org/x/sys/unix"
)

// dup duplicates an eventfd, so that the test can park on it.
func dup(fd int) (*os.File, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(n), "eventfd"), nil
}

// ring adds one to an eventfd, as a hypervisor's ioeventfd does.
func ring(fd int) { _, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }
