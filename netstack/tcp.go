package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/hutchvm/hutch/netstack/policy"
)

// Towards the guest: a connection that it forgot (its kernel was restored, or
// the process is gone after a half close) is found out by probes.
const (
	keepAliveIdle     = 60 * time.Second
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 4
)

const (
	// backlog is how many connections wait when there are too many; the guest's
	// requests beyond that are not heard.
	backlog     = 1024
	backlogWait = 30 * time.Second
)

// takeSlot waits until there are few enough connections.
func (s *Stack) takeSlot() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	s.counters.limited.Add(1)
	t := time.NewTimer(backlogWait)
	defer t.Stop()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-t.C:
	case <-s.ctx.Done():
	}
	return false
}

// handleTCP gets the segments that belong to no connection. It runs on the
// card's goroutine. A segment that it does not handle is answered by a RST: what
// is not allowed is refused without costing a goroutine.
func (s *Stack) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	f := newTCPFlow(s, id)
	if f.dns() {
		if s.cfg.DNS == nil {
			return false
		}
	} else if d := s.decide(f.policy); !d.Allow {
		f.log(FlowDenied, d.Rule, ErrDenied)
		return false
	}
	return s.forward.HandlePacket(id, pkt)
}

// tcpFlow is one connection of the guest.
type tcpFlow struct {
	s      *Stack
	guest  netip.AddrPort
	to     netip.AddrPort
	policy policy.Flow
	rule   int

	ep tcpip.Endpoint
	wq waiter.Queue
}

func newTCPFlow(s *Stack, id stack.TransportEndpointID) *tcpFlow {
	f := &tcpFlow{
		s:     s,
		guest: netip.AddrPortFrom(netipOf(id.RemoteAddress), id.RemotePort),
		to:    netip.AddrPortFrom(netipOf(id.LocalAddress), id.LocalPort),
	}
	f.policy = policy.Flow{Direction: policy.Egress, Proto: policy.TCP, Addr: f.to.Addr(), Port: f.to.Port()}
	return f
}

func (f *tcpFlow) dns() bool { return f.to.Port() == dnsPort }

func (f *tcpFlow) log(kind EventKind, rule int, err error) {
	f.s.log(FlowEvent{Kind: kind, Flow: f.policy, Guest: f.guest, Rule: rule, Err: err})
}

// acceptTCP takes a connection request of the guest, on a goroutine of its own.
func (s *Stack) acceptTCP(r *tcp.ForwarderRequest) {
	if !s.begin() {
		r.Complete(false)
		return
	}
	defer s.tasks.Done()
	if !s.takeSlot() {
		r.Complete(false) // the guest may ask again
		return
	}
	defer func() { <-s.slots }()
	f := newTCPFlow(s, r.ID())
	if f.dns() {
		if f.accept(r) {
			c := f.conn()
			defer context.AfterFunc(s.ctx, func() { _ = c.Close() })()
			s.cfg.DNS.ServeTCP(s.ctx, c, f.to)
		}
		return
	}
	d := s.decide(f.policy)
	f.rule = d.Rule
	if !d.Allow {
		f.log(FlowDenied, d.Rule, ErrDenied)
		r.Complete(true)
		return
	}
	var handler StreamHandler
	if s.cfg.Intercept != nil {
		handler = s.cfg.Intercept(f.policy)
	}
	if handler != nil || d.NeedSNI && !d.ConnectFirst {
		if f.accept(r) {
			f.serveInspected(d.NeedSNI, handler)
		}
		return
	}
	conn, err := f.dial(s.ctx)
	if err != nil {
		// Nobody there is not the same as somebody who refuses: the guest asks
		// on until it gives up by itself.
		r.Complete(!isTimeout(err))
		return
	}
	if !f.accept(r) {
		resetConn(conn)
		return
	}
	f.splice(conn, d.NeedSNI)
}

// accept finishes the handshake with the guest. It takes as long as the guest
// does.
func (f *tcpFlow) accept(r *tcp.ForwarderRequest) bool {
	ep, err := r.CreateEndpoint(&f.wq)
	r.Complete(err != nil)
	if err != nil {
		return false
	}
	f.ep = ep
	ep.SocketOptions().SetKeepAlive(true)
	idle, interval := tcpip.KeepaliveIdleOption(keepAliveIdle), tcpip.KeepaliveIntervalOption(keepAliveInterval)
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepAliveCount)
	return true
}

// conn is the guest's end as a net.Conn, which owns it.
func (f *tcpFlow) conn() net.Conn { return gonet.NewTCPConn(&f.wq, f.ep) }

// dial opens the host's end.
func (f *tcpFlow) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	conn, err := f.s.cfg.DialTCP(ctx, f.s.hostAddr(f.to))
	if err != nil {
		f.log(FlowFailed, f.rule, err)
		return nil, err
	}
	f.log(FlowOpened, f.rule, nil)
	return conn, nil
}

// serveInspected looks at the first bytes that the guest sends before the host is
// connected to. When there are none for long, the guest may be waiting for the
// server to speak: then it is connected to, and what the guest sends is still
// looked at before it is passed on.
func (f *tcpFlow) serveInspected(needSNI bool, handler StreamHandler) {
	var hello []byte
	if needSNI {
		timeout := time.NewTimer(helloTimeout)
		defer timeout.Stop()
		var err error
		if hello, needSNI, err = f.inspect(timeout.C, f.s.ctx.Done()); err != nil {
			if !errors.Is(err, ErrDenied) {
				f.log(FlowFailed, f.rule, err)
			}
			f.ep.Abort()
			return
		}
	}
	if handler != nil {
		c := f.conn()
		defer context.AfterFunc(f.s.ctx, func() { _ = c.Close() })()
		handler.ServeStream(f.s.ctx, c, hello, f.dial)
		return
	}
	conn, err := f.dial(f.s.ctx)
	if err != nil {
		f.ep.Abort()
		return
	}
	f.splice(conn, needSNI)
}

// abortEndpoints ends the handshakes that the guest does not finish. Connections
// end by themselves.
func (s *Stack) abortEndpoints() {
	for _, e := range s.ip.RegisteredEndpoints() {
		ep, ok := e.(*tcp.Endpoint)
		if !ok {
			continue
		}
		switch ep.EndpointState() {
		case tcp.StateSynRecv, tcp.StateSynSent, tcp.StateConnecting:
			ep.Abort()
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) || errors.As(err, &t) && t.Timeout()
}

// resetConn ends a connection of the host with a RST.
func resetConn(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
