package netstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// copyBuffer is how much is read from a host's socket at once.
	copyBuffer = 128 << 10
	// maxGather bounds what is written to one with one system call.
	maxGather      = 64 // pieces
	maxGatherBytes = 1 << 20
)

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// splice moves data between an endpoint of the stack and a socket of the host,
// each direction on a goroutine of its own, until both directions ended or one
// was reset. It owns both ends.
type splice struct {
	ctx  context.Context
	link *link
	ep   tcpip.Endpoint
	wq   *waiter.Queue
	conn net.Conn
	// hold, if set, returns when what the guest sends may go to the host, or
	// with an error when it may not, or when its argument is closed.
	hold func(stop <-chan struct{}) error

	guestDone chan struct{} // closed when nothing more goes to the guest
	reset     chan struct{} // closed when one direction was reset
	resetOnce sync.Once
	err       error // why

	toHost, toGuest atomic.Uint64 // bytes
}

// splice serves the flow. With needSNI, nothing that the guest sends goes to the
// host before it was inspected, however long that takes.
func (f *tcpFlow) splice(conn net.Conn, needSNI bool) {
	sp := newSplice(f.s, f.ep, &f.wq, conn)
	if needSNI {
		sp.hold = func(stop <-chan struct{}) error {
			_, _, err := f.inspect(nil, stop)
			return err
		}
	}
	sp.run()
	f.s.log(FlowEvent{
		Kind: FlowClosed, Flow: f.policy, Guest: f.guest, Rule: f.rule, Err: sp.err,
		Sent: sp.toHost.Load(), Received: sp.toGuest.Load(),
	})
}

func newSplice(st *Stack, ep tcpip.Endpoint, wq *waiter.Queue, conn net.Conn) *splice {
	return &splice{ctx: st.ctx, link: st.link, ep: ep, wq: wq, conn: conn,
		guestDone: make(chan struct{}), reset: make(chan struct{})}
}

// fail ends both directions.
func (s *splice) fail(err error) {
	s.resetOnce.Do(func() {
		s.err = err
		close(s.reset)
		// Wakes who waits for the socket; it is closed when nobody uses it.
		_ = s.conn.SetDeadline(time.Unix(1, 0))
	})
}

// run returns when both ends are closed.
func (s *splice) run() {
	stop := context.AfterFunc(s.ctx, func() { s.fail(ErrClosed) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(s.copyToHost)
	s.copyToGuest()
	close(s.guestDone)
	wg.Wait()
	select {
	case <-s.reset:
		resetConn(s.conn)
		s.ep.Abort()
	default:
		_ = s.conn.Close()
	}
	// Only now: buffers of the endpoint were in use by copyToHost.
	s.ep.Close()
}

// wait waits for an event of the endpoint. It reports false when the splice ends.
func (s *splice) wait(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	case <-s.reset:
		return false
	}
}

func (s *splice) ended() bool {
	select {
	case <-s.reset:
		return true
	default:
		return false
	}
}

// gather is a writer that keeps what it is given instead of copying it.
type gather struct {
	pieces [][]byte
	n      int
}

var errEnough = errors.New("enough")

func (g *gather) Write(b []byte) (int, error) {
	if len(g.pieces) == maxGather || g.n >= maxGatherBytes {
		return 0, errEnough
	}
	g.pieces = append(g.pieces, b)
	g.n += len(b)
	return len(b), nil
}

// discard is a writer that takes so many bytes and forgets them.
type discard int

func (d *discard) Write(b []byte) (int, error) {
	if n := int(*d); n < len(b) {
		*d = 0
		return n, errEnough
	}
	*d -= discard(len(b))
	return len(b), nil
}

// copyToHost moves what the guest sends. Segments are written to the socket from
// where they lie in the endpoint's queue, several with one system call, and taken
// out of the queue afterwards. Nobody else reads the endpoint or closes it, so
// they stay where they are meanwhile; a RST of the guest leaves them too.
func (s *splice) copyToHost() {
	if s.hold != nil {
		if err := s.hold(s.reset); err != nil {
			s.fail(err)
			return
		}
	}
	entry, ch := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	s.wq.EventRegister(&entry)
	defer s.wq.EventUnregister(&entry)
	var (
		g    = gather{pieces: make([][]byte, 0, 8)}
		bufs = new(net.Buffers)
		done discard
	)
	for !s.ended() {
		g.pieces, g.n = g.pieces[:0], 0
		_, err := s.ep.Read(&g, tcpip.ReadOptions{Peek: true})
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if !s.wait(ch) {
				return
			}
			continue
		case *tcpip.ErrClosedForReceive:
			if cw, ok := s.conn.(interface{ CloseWrite() error }); ok {
				if err := cw.CloseWrite(); err != nil {
					s.fail(err)
				}
			}
			s.watch(ch)
			return
		default:
			s.fail(errors.New(err.String()))
			return
		}
		// Written from a copy of the list, which WriteTo eats up.
		*bufs = append((*bufs)[:0], g.pieces...)
		keep := *bufs
		n, werr := bufs.WriteTo(s.conn)
		*bufs = keep[:0]
		s.toHost.Add(uint64(n))
		done = discard(n)
		if n > 0 {
			_, _ = s.ep.Read(&done, tcpip.ReadOptions{})
		}
		if werr != nil {
			s.fail(werr)
			return
		}
	}
}

// watch waits for the end of the other direction after the guest sent all it had
// to, or for a reset, which nobody else would notice while the host is silent.
func (s *splice) watch(ch <-chan struct{}) {
	for tcp.EndpointState(s.ep.State()) != tcp.StateError {
		select {
		case <-ch:
		case <-s.guestDone:
			return
		case <-s.reset:
			return
		}
	}
	s.fail(syscall.ECONNRESET)
}

// copyToGuest moves what the host sends.
func (s *splice) copyToGuest() {
	entry, ch := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	s.wq.EventRegister(&entry)
	defer s.wq.EventUnregister(&entry)
	src := newSource(s.conn)
	var payload bytes.Reader
	for !s.ended() {
		buf, n, err := src.read()
		if n > 0 {
			payload.Reset(buf[:n])
			ok := s.write(&payload, ch)
			s.toGuest.Add(uint64(n - payload.Len()))
			src.release(buf)
			if !ok {
				return
			}
		} else {
			src.release(buf)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if err := s.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
				s.fail(errors.New(err.String()))
			}
			return
		default:
			s.fail(err)
			return
		}
	}
}

// write gives the endpoint all of p, waiting for room.
func (s *splice) write(p *bytes.Reader, ch <-chan struct{}) bool {
	for p.Len() > 0 {
		s.link.cork()
		_, err := s.ep.Write(p, tcpip.WriteOptions{})
		s.link.uncork()
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if !s.wait(ch) {
				return false
			}
		default:
			s.fail(errors.New(err.String()))
			return false
		}
	}
	return true
}
