package virtio

import (
	"os"

	"golang.org/x/sys/unix"
)

// eventfd is a non-blocking eventfd whose readers park in the runtime poller.
type eventfd struct {
	f  *os.File
	fd int // File.Fd would make it blocking
}

func newEventfd() (eventfd, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return eventfd{fd: -1}, os.NewSyscallError("eventfd", err)
	}
	return eventfd{f: os.NewFile(uintptr(fd), "eventfd"), fd: fd}, nil
}
