package guest

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

const (
	// dialTimeout is how long an attempt has unless the host says otherwise.
	dialTimeout = 30 * time.Second
	// relayBuffer is the size of one read of a relayed stream, header included:
	// what one vsock packet carries.
	relayBuffer = proto.FrameHeaderSize + proto.MaxData
)

var errDialNetwork = errors.New("unknown network")

// relay carries a dialed stream between the host and a socket of the guest.
type relay struct {
	conn   Conn         // to the host
	target *os.File     // polls
	ended  atomic.Int32 // directions
	once   sync.Once
}

// half notes that one direction has ended in order.
func (d *relay) half() {
	if d.ended.Add(1) == 2 {
		d.close()
	}
}

// close ends both directions at once.
func (d *relay) close() {
	d.once.Do(func() {
		d.conn.Close()
		d.target.Close()
	})
}

// dial serves a Dial until its stream is over.
func (s *Server) dial(conn Conn, req *proto.Dial) {
	target, local, remote, err := dialSocket(req)
	var answer proto.Message = &proto.Dialed{Local: local, Remote: remote}
	d := &relay{conn: conn, target: target}
	if err == nil {
		if err = s.carryDial(d); err != nil {
			target.Close()
		}
	}
	if err != nil {
		failed := &proto.DialError{Message: req.Address + ": " + err.Error()}
		var errno unix.Errno
		if errors.As(err, &errno) {
			failed.Errno = uint32(errno)
		}
		answer = failed
		conn.SetWriteDeadline(time.Now().Add(faultPatience))
	}
	frame, ferr := proto.AppendFrame(proto.AppendHandshake(nil), answer)
	if ferr == nil {
		_, ferr = conn.Write(frame)
	}
	if err != nil {
		return
	}
	defer s.dropDial(d)
	defer d.close()
	if ferr != nil {
		return
	}
	var work sync.WaitGroup
	work.Go(d.up)
	d.down()
	work.Wait()
}

// carryDial enters a relay, unless the server is stopping.
func (s *Server) carryDial(d *relay) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errStopping
	}
	s.dials[d] = struct{}{}
	s.work.Add(1)
	return nil
}

func (s *Server) dropDial(d *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dials, d)
	s.work.Done()
}

// up carries what the host sends.
func (d *relay) up() {
	buf := make([]byte, relayBuffer)
	for {
		n, err := d.conn.Read(buf)
		if n > 0 {
			if _, werr := d.target.Write(buf[:n]); werr != nil {
				shutdown(d.conn, unix.SHUT_RD) // so that the host's next write fails
				d.half()
				return
			}
		}
		if err != nil {
			break
		}
	}
	shutdown(d.target, unix.SHUT_WR)
	d.half()
	// The end of what the host sends may be that of the connection as well, and
	// without data nothing else would tell. The host's closing wakes the socket.
	if raw := rawOf(d.conn); raw != nil {
		raw.Read(func(fd uintptr) bool {
			_, err := unix.SendmsgN(int(fd), nil, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return err != nil && err != unix.EAGAIN
		})
		d.close()
	}
}

// down carries what the guest's socket sends.
func (d *relay) down() {
	buf := make([]byte, relayBuffer)
	for {
		n, err := d.target.Read(buf[proto.FrameHeaderSize:])
		if n > 0 {
			proto.PutHeader(buf, proto.TypeDialData, n)
			if _, werr := d.conn.Write(buf[:proto.FrameHeaderSize+n]); werr != nil {
				d.close() // the host is gone
				return
			}
		}
		if err == nil {
			continue
		}
		m := new(proto.DialEnd)
		if err != io.EOF {
			errno := unix.ECONNABORTED // closed by us
			errors.As(err, &errno)
			m.Errno = uint32(errno)
		}
		if frame, err := proto.AppendFrame(nil, m); err == nil {
			d.conn.Write(frame)
		}
		if m.Errno != 0 {
			d.close()
		} else {
			d.half()
		}
		return
	}
}

func rawOf(c any) syscall.RawConn {
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

func shutdown(c any, how int) {
	if raw := rawOf(c); raw != nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), how) })
	}
}

// dialSocket connects to where the host wants to.
func dialSocket(req *proto.Dial) (target *os.File, local, remote string, err error) {
	timeout := dialTimeout
	if req.Timeout > 0 {
		timeout = time.Duration(min(req.Timeout, uint64(time.Hour)))
	}
	family, to, err := sockaddrOf(req)
	if err != nil {
		return nil, "", "", err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, "", "", os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "dialed")
	if err := connect(f, fd, to, time.Now().Add(timeout)); err != nil {
		f.Close()
		return nil, "", "", os.NewSyscallError("connect", err)
	}
	if family != unix.AF_UNIX {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	here, _ := unix.Getsockname(fd)
	there, _ := unix.Getpeername(fd)
	return f, addressOf(here), addressOf(there), nil
}

// sockaddrOf reads the address of a Dial.
func sockaddrOf(req *proto.Dial) (family int, to unix.Sockaddr, err error) {
	switch req.Network {
	case "tcp":
		a, err := netip.ParseAddrPort(req.Address)
		if err != nil {
			return 0, nil, os.NewSyscallError("address", unix.EINVAL)
		}
		if ip := a.Addr().Unmap(); ip.Is4() {
			return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, nil
		}
		return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, nil
	case "unix":
		if !strings.HasPrefix(req.Address, "/") && !strings.HasPrefix(req.Address, "@") {
			return 0, nil, os.NewSyscallError("address", unix.EINVAL)
		}
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: req.Address}, nil
	}
	return 0, nil, errDialNetwork
}

// connect connects a non-blocking socket before the deadline.
func connect(f *os.File, fd int, to unix.Sockaddr, deadline time.Time) error {
	err := ignoringEINTR(func() error { return unix.Connect(fd, to) })
	if err != unix.EINPROGRESS {
		return err // EAGAIN of a unix socket is a full backlog
	}
	f.SetWriteDeadline(deadline)
	defer f.SetWriteDeadline(time.Time{})
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = err
		case n != 0:
			failed = unix.Errno(n)
		default:
			// Without an error it stands only when it has a peer.
			if _, err := unix.Getpeername(int(fd)); err == unix.ENOTCONN {
				return false
			}
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return unix.ETIMEDOUT
	}
	if err != nil {
		return err
	}
	return failed
}

// addressOf writes an address, "" that of a unix socket without a name.
func addressOf(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrUnix:
		return a.Name
	}
	return ""
}
