package netstack

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// source reads a connection into pooled buffers. It holds none while it waits
// for data, which most connections do most of the time.
type source struct {
	conn  net.Conn
	raw   syscall.RawConn // nil: not a socket
	dgram bool            // an empty read is an empty datagram, no end
	try   func(fd uintptr) bool

	buf *[copyBuffer]byte
	n   int
	err error
}

func newSource(c net.Conn) *source {
	s := &source{conn: c}
	switch t := c.(type) {
	case *net.TCPConn:
		s.raw, _ = t.SyscallConn()
	case *net.UnixConn:
		s.raw, _ = t.SyscallConn()
	case *net.UDPConn:
		s.raw, _ = t.SyscallConn()
		s.dgram = true
	}
	s.try = s.tryRead
	return s
}

// read returns a buffer with n bytes, to be released also on errors.
func (s *source) read() (*[copyBuffer]byte, int, error) {
	if s.raw == nil {
		buf := copyBuffers.Get().(*[copyBuffer]byte)
		n, err := s.conn.Read(buf[:])
		return buf, n, err
	}
	s.buf, s.n, s.err = nil, 0, nil
	if err := s.raw.Read(s.try); err != nil {
		return s.buf, 0, err
	}
	if s.err == nil && s.n == 0 && !s.dgram {
		s.err = io.EOF
	}
	return s.buf, s.n, s.err
}

// tryRead runs before and after each wait for the socket.
func (s *source) tryRead(fd uintptr) bool {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	for {
		n, err := unix.Read(int(fd), buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			copyBuffers.Put(buf)
			return false
		case err != nil:
			s.err = os.NewSyscallError("read", err)
		default:
			s.n = n
		}
		s.buf = buf
		return true
	}
}

func (s *source) release(buf *[copyBuffer]byte) {
	if buf != nil {
		copyBuffers.Put(buf)
	}
}
