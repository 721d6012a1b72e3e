package guest

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long the agent tries to reach the host, and how often. The device is
// there before process 1, but a machine that was just restored may need a
// moment.
const (
	dialPatience = 20 * time.Second
	dialPause    = 2 * time.Millisecond
)

// maxBacklog is the number of connections that wait to be taken.
const maxBacklog = 128

// dialHost connects to a port of the host.
func dialHost(port uint32) (*os.File, error) {
	for start := time.Now(); ; time.Sleep(dialPause) {
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = ignoringEINTR(func() error {
				return unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port})
			})
			if err == nil {
				return pollable(fd, "vsock")
			}
			unix.Close(fd)
		}
		if time.Since(start) > dialPatience {
			return nil, os.NewSyscallError("connect to the host", err)
		}
	}
}

func pollable(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("set nonblock", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// listener takes the host's connections.
type listener struct{ file *os.File }

func listenVsock(port uint32) (*listener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
	if err == nil {
		err = unix.Listen(fd, maxBacklog)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	return &listener{os.NewFile(uintptr(fd), "vsock listener")}, nil
}

// accept waits for the next connection of the host. Those of the guest's own
// processes are refused: whoever is connected runs commands as root.
func (l *listener) accept() (*os.File, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		var from unix.Sockaddr
		var aerr error
		err := raw.Read(func(s uintptr) bool {
			fd, from, aerr = unix.Accept4(int(s), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN
		})
		if err != nil {
			return nil, err
		}
		switch {
		case aerr == nil:
		case aerr == unix.EMFILE || aerr == unix.ENFILE || aerr == unix.ENOMEM || aerr == unix.ENOBUFS:
			time.Sleep(10 * time.Millisecond) // until others have ended
			continue
		case aerr == unix.EBADF || aerr == unix.EINVAL:
			return nil, os.NewSyscallError("accept", aerr)
		default:
			continue // this connection is gone already
		}
		if vm, ok := from.(*unix.SockaddrVM); !ok || vm.CID != unix.VMADDR_CID_HOST {
			unix.Close(fd)
			continue
		}
		return os.NewFile(uintptr(fd), "vsock"), nil
	}
}

// serve takes connections until the listener is closed.
func (s *Server) serve(l *listener) {
	for {
		conn, err := l.accept()
		if err != nil {
			return
		}
		go s.Handle(conn)
	}
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
