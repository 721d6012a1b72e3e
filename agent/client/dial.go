package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

// dialTimeout is how long the guest tries when ctx has no deadline.
const dialTimeout = 30 * time.Second

// halfCloser is a connection whose two directions can be closed apart.
type halfCloser interface{ CloseWrite() error }

// Stream is a connection to a socket in the guest. It is a net.Conn; its errors
// are *net.OpError with the guest's errno. Its methods may be called from any
// goroutine.
type Stream struct {
	conn          net.Conn
	network       string
	local, remote net.Addr

	mu   sync.Mutex // reading
	in   *bufio.Reader
	left int   // bytes of the data frame that is being read
	end  error // how the guest's stream ended
}

// Dial connects to a socket in the guest: network is "tcp" with an address
// "ip:port", or "unix" with a path in the guest or "@" and an abstract name.
// The error is a *net.OpError and, when the guest's kernel refused, has its
// errno. ctx bounds the attempt only.
func (a *Agent) Dial(ctx context.Context, network, address string) (*Stream, error) {
	s := &Stream{network: network, remote: addrOf(network, address)}
	fail := func(err error) (*Stream, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: s.remote, Err: err}
	}
	timeout := dialTimeout
	if t, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(t), 1)
	}
	frame, err := proto.AppendFrame(proto.AppendHandshake(nil), &proto.Dial{Network: network, Address: address, Timeout: uint64(timeout)})
	if err != nil {
		return fail(err)
	}
	s.conn, err = a.dial(ctx)
	if err != nil {
		return fail(cause(ctx, err))
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		s.conn.SetDeadline(time.Unix(1, 0))
	})
	err = s.open(frame)
	if !stop() {
		<-over
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		s.conn.Close()
		var refused *proto.DialError
		switch {
		case errors.As(err, &refused) && refused.Errno != 0:
			err = os.NewSyscallError("connect", syscall.Errno(refused.Errno))
		case refused == nil:
			err = cause(ctx, err)
		}
		return fail(err)
	}
	return s, nil
}

// open asks the agent and reads its answer.
func (s *Stream) open(frame []byte) error {
	if _, err := s.conn.Write(frame); err != nil {
		return err
	}
	s.in = bufio.NewReaderSize(s.conn, 16<<10)
	// The frames behind the answer are read by Read; one reader serves both.
	r := proto.NewReader(io.LimitReader(s.in, proto.HandshakeSize))
	if err := r.Handshake(); err != nil {
		return err
	}
	typ, n, err := s.header()
	if err != nil {
		return err
	}
	if n > 4<<10 {
		return &proto.Error{Op: "dial", Err: proto.ErrTooLarge}
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return err
	}
	switch typ {
	case proto.TypeDialed:
		m := new(proto.Dialed)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		s.local, s.remote = addrOf(s.network, m.Local), addrOf(s.network, m.Remote)
		return nil
	case proto.TypeDialError:
		m := new(proto.DialError)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		return m
	case proto.TypeFault:
		return fault(payload)
	}
	return &proto.Error{Op: "dial", Err: proto.ErrUnexpected}
}

// header reads the next frame's header. When it fails for a deadline, what was
// read stays for the next call.
func (s *Stream) header() (typ proto.Type, n int, err error) {
	h, err := s.in.Peek(proto.FrameHeaderSize)
	if err != nil {
		return 0, 0, err
	}
	size := binary.LittleEndian.Uint32(h)
	if size > proto.MaxData {
		return 0, 0, &proto.Error{Op: "dial", Err: proto.ErrTooLarge}
	}
	typ = proto.Type(h[4])
	s.in.Discard(proto.FrameHeaderSize)
	return typ, int(size), nil
}

// addrOf makes an address of the guest's words for it.
func addrOf(network, s string) net.Addr {
	if network == "unix" {
		return &net.UnixAddr{Net: "unix", Name: s}
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return net.TCPAddrFromAddrPort(a)
	}
	return &net.TCPAddr{}
}

func (s *Stream) opErr(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var inner *net.OpError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: s.network, Source: s.local, Addr: s.remote, Err: err}
}

// Read reads what the guest's socket sent. io.EOF is the end of the stream in
// order; one that was reset says so.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.read(p)
	return n, s.opErr("read", err)
}

func (s *Stream) read(p []byte) (int, error) {
	for s.left == 0 {
		if s.end != nil {
			return 0, s.end
		}
		typ, n, err := s.header()
		if err != nil {
			var broken *proto.Error
			switch {
			case err == io.EOF:
				err = io.ErrUnexpectedEOF // the guest is gone
				s.end = err
			case errors.As(err, &broken):
				s.end = err
			}
			return 0, err
		}
		switch {
		case typ == proto.TypeDialData:
			s.left = n
		case typ == proto.TypeDialEnd && n <= 64:
			s.end = s.ending(n)
		default:
			s.end = &proto.Error{Op: "dial", Err: proto.ErrUnexpected}
		}
	}
	n, err := s.in.Read(p[:min(len(p), s.left)])
	s.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// ending reads how the guest's stream ended. The frame is small and comes with
// its header.
func (s *Stream) ending(n int) error {
	payload := make([]byte, n)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return io.ErrUnexpectedEOF
	}
	m := new(proto.DialEnd)
	if err := proto.Unmarshal(payload, m); err != nil {
		return err
	}
	if m.Errno != 0 {
		return os.NewSyscallError("read", syscall.Errno(m.Errno))
	}
	return io.EOF
}

// Write sends p to the guest's socket. That it returned does not mean that the
// guest's program has read anything, as with every socket.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.conn.Write(p)
	return n, s.opErr("write", err)
}

// CloseWrite ends what is sent; the guest's program reads to the end and sees
// the end of the stream. Reading goes on.
func (s *Stream) CloseWrite() error {
	c, ok := s.conn.(halfCloser)
	if !ok {
		return s.opErr("close", errors.ErrUnsupported)
	}
	return s.opErr("close", c.CloseWrite())
}

// Close ends both directions.
func (s *Stream) Close() error { return s.opErr("close", s.conn.Close()) }

// LocalAddr is the agent's end in the guest.
func (s *Stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr is the socket that was dialed.
func (s *Stream) RemoteAddr() net.Addr { return s.remote }

// SetDeadline sets both deadlines.
func (s *Stream) SetDeadline(t time.Time) error { return s.opErr("set", s.conn.SetDeadline(t)) }

// SetReadDeadline bounds the waiting of Read.
func (s *Stream) SetReadDeadline(t time.Time) error {
	return s.opErr("set", s.conn.SetReadDeadline(t))
}

// SetWriteDeadline bounds the waiting of Write.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	return s.opErr("set", s.conn.SetWriteDeadline(t))
}
