package vsock

import (
	"fmt"
	"net"
	"syscall"
)

// Errors of this package. They arrive inside a [*net.OpError] whose Net is
// "vsock"; test for them with errors.Is. Each also matches the errno that the
// same event has on a TCP socket. Closed connections, listeners and devices
// report net.ErrClosed, passed deadlines os.ErrDeadlineExceeded.
var (
	// ErrRefused: nobody listens on that port in the guest (ECONNREFUSED).
	ErrRefused error = &sentinel{"connection refused", syscall.ECONNREFUSED}
	// ErrReset: the guest reset the connection or broke the protocol on it, or
	// the device was reset under it (ECONNRESET).
	ErrReset error = &sentinel{"connection reset by guest", syscall.ECONNRESET}
	// ErrShutdown: write after CloseWrite, or after the guest said that it
	// reads no more (EPIPE).
	ErrShutdown error = &sentinel{"write side is shut down", syscall.EPIPE}
	// ErrPortInUse: Listen on a port that has a listener (EADDRINUSE).
	ErrPortInUse error = &sentinel{"port is in use", syscall.EADDRINUSE}
	// ErrTooMany: the device has Config.MaxConns connections (ENOBUFS).
	ErrTooMany error = &sentinel{"too many connections", syscall.ENOBUFS}
)

type sentinel struct {
	text  string
	errno syscall.Errno
}

func (e *sentinel) Error() string { return e.text }

func (e *sentinel) Is(target error) bool { return target == e.errno }

// Addr is one end of a connection: a context ID and a port.
type Addr struct {
	CID  uint32
	Port uint32
}

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns "cid:port".
func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

var _ net.Addr = Addr{}
