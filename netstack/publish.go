package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/hutchvm/hutch/netstack/policy"
)

const (
	// maxPublished bounds the connections that come in by published ports; more
	// wait in the host's backlog.
	maxPublished = 4096
	// firstInbound is where the ports of the gateway begin that stand for clients
	// of published UDP ports.
	firstInbound = 49152
	// maxDatagram is what UDP can carry.
	maxDatagram = 65535
)

// Binding publishes a port of the guest.
type Binding struct {
	Proto policy.Proto   // policy.TCP or policy.UDP; TCP if 0
	Host  netip.AddrPort // where to listen; 127.0.0.1 without an address, any free port if 0
	Guest uint16         // port in the guest
}

// Listen publishes a port and returns where. Listen before the guest runs, so
// that a port that is in use is known early. Clients come from the gateway's
// address, as the guest sees it. The port is closed by Close.
func (s *Stack) Listen(b Binding) (netip.AddrPort, error) {
	if b.Proto == 0 {
		b.Proto = policy.TCP
	}
	if !b.Host.Addr().IsValid() {
		b.Host = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.Host.Port())
	}
	bad := func(err error) (netip.AddrPort, error) {
		return netip.AddrPort{}, &OpError{"listen", fmt.Sprintf("%v/%v", b.Host, b.Proto), err}
	}
	if b.Guest == 0 {
		return bad(fmt.Errorf("%w: port of the guest is 0", ErrConfig))
	}
	switch b.Proto {
	case policy.TCP:
		l, err := net.ListenTCP(familyOf("tcp", b.Host.Addr()), net.TCPAddrFromAddrPort(b.Host))
		if err != nil {
			return bad(err)
		}
		if !s.start(func() { s.serveListener(l, b.Guest) }) {
			_ = l.Close()
			return bad(ErrClosed)
		}
		return l.Addr().(*net.TCPAddr).AddrPort(), nil
	case policy.UDP:
		c, err := net.ListenUDP(familyOf("udp", b.Host.Addr()), net.UDPAddrFromAddrPort(b.Host))
		if err != nil {
			return bad(err)
		}
		p := &publishedUDP{s: s, conn: c, port: b.Guest, clients: make(map[netip.AddrPort]*inboundFlow)}
		if !s.start(p.serve) {
			_ = c.Close()
			return bad(ErrClosed)
		}
		return c.LocalAddr().(*net.UDPAddr).AddrPort(), nil
	}
	return bad(fmt.Errorf("%w: protocol", ErrConfig))
}

// familyOf keeps "0.0.0.0" from listening on IPv6 as well.
func familyOf(network string, a netip.Addr) string {
	if a.Unmap().Is4() {
		return network + "4"
	}
	return network + "6"
}

func (s *Stack) serveListener(l *net.TCPListener, port uint16) {
	defer context.AfterFunc(s.ctx, func() { _ = l.Close() })()
	defer l.Close()
	slots := make(chan struct{}, maxPublished)
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors: others have to finish first.
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		slots <- struct{}{}
		if !s.start(func() {
			defer func() { <-slots }()
			s.serveInbound(c, port)
		}) {
			resetConn(c)
			return
		}
	}
}

// ingress asks the policy about a client of a published port.
func (s *Stack) ingress(proto policy.Proto, client netip.AddrPort, port uint16) (FlowEvent, bool) {
	ev := FlowEvent{
		Flow:  policy.Flow{Direction: policy.Ingress, Proto: proto, Addr: client.Addr().Unmap(), Port: port},
		Guest: netip.AddrPortFrom(s.guestAddr(), port),
	}
	d := s.decide(ev.Flow)
	ev.Rule = d.Rule
	if !d.Allow {
		ev.Kind, ev.Err = FlowDenied, ErrDenied
		s.log(ev)
	}
	return ev, d.Allow
}

func (s *Stack) serveInbound(c *net.TCPConn, port uint16) {
	client, _ := c.RemoteAddr().(*net.TCPAddr)
	ev, ok := s.ingress(policy.TCP, client.AddrPort(), port)
	if !ok {
		resetConn(c)
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, GuestDialTimeout)
	defer cancel()
	var wq waiter.Queue
	ep, err := s.dialGuest(ctx, &wq, s.guestAddr(), port)
	if errors.Is(err, syscall.ECONNREFUSED) && s.addrs.Guest4.IsValid() && s.addrs.Guest6.IsValid() {
		// A service that listens on IPv6 only.
		wq = waiter.Queue{}
		ep, err = s.dialGuest(ctx, &wq, s.addrs.Guest6.Addr(), port)
	}
	if err != nil {
		ev.Kind, ev.Err = FlowFailed, err
		s.log(ev)
		resetConn(c)
		return
	}
	ev.Kind = FlowOpened
	s.log(ev)
	sp := newSplice(s, ep, &wq, c)
	sp.run()
	ev.Kind, ev.Err = FlowClosed, sp.err
	ev.Sent, ev.Received = sp.toHost.Load(), sp.toGuest.Load()
	s.log(ev)
}

// guestAddr is the guest's address that is tried first.
func (s *Stack) guestAddr() netip.Addr {
	if s.addrs.Guest4.IsValid() {
		return s.addrs.Guest4.Addr()
	}
	return s.addrs.Guest6.Addr()
}

// dialGuest connects to a port of the guest.
func (s *Stack) dialGuest(ctx context.Context, wq *waiter.Queue, to netip.Addr, port uint16) (tcpip.Endpoint, error) {
	ep, terr := s.ip.NewEndpoint(tcp.ProtocolNumber, protocolOf(to), wq)
	if terr != nil {
		return nil, errors.New(terr.String())
	}
	entry, ch := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr = ep.Connect(fullOf(netip.AddrPortFrom(to, port)))
	if _, ok := terr.(*tcpip.ErrConnectStarted); ok {
		select {
		case <-ch:
			terr = ep.LastError()
		case <-ctx.Done():
			ep.Abort()
			ep.Close()
			return nil, context.Cause(ctx)
		}
	}
	if terr != nil {
		ep.Close()
		return nil, errnoOf(terr)
	}
	return ep, nil
}

// errnoOf gives the errors that callers ask for their usual names.
func errnoOf(err tcpip.Error) error {
	switch err.(type) {
	case *tcpip.ErrConnectionRefused, *tcpip.ErrConnectionReset:
		return os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case *tcpip.ErrTimeout:
		return os.NewSyscallError("connect", syscall.ETIMEDOUT)
	case *tcpip.ErrHostUnreachable:
		return os.NewSyscallError("connect", syscall.EHOSTUNREACH)
	}
	return errors.New(err.String())
}

// DialContext connects to a TCP port of the guest through its network card:
// network is "tcp", addr one of its addresses (or none) and a port. Policy rules
// do not apply: the caller is the owner.
func (s *Stack) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	bad := func(err error) (net.Conn, error) { return nil, &OpError{"dial", network + " " + addr, err} }
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return bad(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return bad(err)
	}
	to := s.guestAddr()
	if host != "" {
		if to, err = netip.ParseAddr(host); err != nil {
			return bad(err)
		}
	}
	if network != "tcp" && network != "tcp4" && network != "tcp6" || to != s.addrs.Guest4.Addr() && to != s.addrs.Guest6.Addr() {
		return bad(fmt.Errorf("%w: want a TCP port of the guest", ErrConfig))
	}
	if !s.begin() {
		return bad(ErrClosed)
	}
	defer s.tasks.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(ErrClosed) })()
	wq := new(waiter.Queue)
	ep, err := s.dialGuest(ctx, wq, to, uint16(n))
	if err != nil {
		return bad(err)
	}
	return gonet.NewTCPConn(wq, ep), nil
}

// publishedUDP is a published UDP port. Each client has a port of the gateway, as
// the guest sees it, to which the guest answers.
type publishedUDP struct {
	s    *Stack
	conn *net.UDPConn
	port uint16

	// Guarded by the stack's udp.mu.
	clients map[netip.AddrPort]*inboundFlow
}

type inboundFlow struct {
	p              *publishedUDP
	client         netip.AddrPort
	port           uint16 // of the gateway
	event          FlowEvent
	last           atomic.Int64
	sent, received atomic.Uint64
}

func (f *inboundFlow) guestPort() uint16 { return f.p.port }

// reply passes a datagram of the guest to the client.
func (f *inboundFlow) reply(b []byte) {
	f.last.Store(sinceEpoch())
	f.sent.Add(uint64(len(b)))
	_, _ = f.p.conn.WriteToUDPAddrPort(b, f.client)
}

func (p *publishedUDP) serve() {
	defer context.AfterFunc(p.s.ctx, func() { _ = p.conn.Close() })()
	defer p.closeAll()
	buf := make([]byte, maxDatagram)
	for {
		_ = p.conn.SetReadDeadline(p.deadline())
		n, client, err := p.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.expire()
			continue
		}
		if err != nil {
			if p.s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error about an earlier answer
		}
		f := p.flow(client)
		if f == nil {
			continue
		}
		f.received.Add(uint64(n))
		guest := p.s.guestAddr()
		gateway := p.s.addrs.Gateway4
		if guest.Is6() {
			gateway = p.s.addrs.Gateway6
		}
		p.s.sendUDP(netip.AddrPortFrom(gateway, f.port), netip.AddrPortFrom(guest, p.port), buf[:n])
	}
}

// deadline is when to look for idle flows; never when there are none.
func (p *publishedUDP) deadline() time.Time {
	p.s.udp.mu.Lock()
	defer p.s.udp.mu.Unlock()
	if len(p.clients) == 0 {
		return time.Time{}
	}
	return time.Now().Add(UDPIdle / 4)
}

// flow returns the flow of a client, a new one if need be; nil when it may not be.
func (p *publishedUDP) flow(client netip.AddrPort) *inboundFlow {
	t := &p.s.udp
	t.mu.Lock()
	f := p.clients[client]
	full := len(t.inbound) >= MaxUDPFlows
	t.mu.Unlock()
	if f != nil {
		f.last.Store(sinceEpoch())
		return f
	}
	if full {
		p.expire()
	}
	ev, ok := p.s.ingress(policy.UDP, client, p.port)
	if !ok {
		return nil
	}
	f = &inboundFlow{p: p, client: client, event: ev}
	f.last.Store(sinceEpoch())
	t.mu.Lock()
	if len(t.inbound) >= MaxUDPFlows {
		t.mu.Unlock()
		p.s.counters.limited.Add(1)
		return nil
	}
	for t.inbound[t.nextPort] != nil {
		t.nextPort = t.nextPort%(1<<16-1) + 1
		t.nextPort = max(t.nextPort, firstInbound)
	}
	f.port = t.nextPort
	t.nextPort = max(t.nextPort+1, firstInbound)
	t.inbound[f.port] = f
	p.clients[client] = f
	t.mu.Unlock()
	f.event.Kind = FlowOpened
	p.s.log(f.event)
	return f
}

// expire forgets idle flows.
func (p *publishedUDP) expire() { p.forget(sinceEpoch() - int64(UDPIdle)) }

func (p *publishedUDP) closeAll() {
	p.forget(sinceEpoch() + 1)
	_ = p.conn.Close()
}

func (p *publishedUDP) forget(before int64) {
	var gone []*inboundFlow
	p.s.udp.mu.Lock()
	for client, f := range p.clients {
		if f.last.Load() < before {
			delete(p.clients, client)
			delete(p.s.udp.inbound, f.port)
			gone = append(gone, f)
		}
	}
	p.s.udp.mu.Unlock()
	for _, f := range gone {
		f.event.Kind = FlowClosed
		f.event.Sent, f.event.Received = f.sent.Load(), f.received.Load()
		p.s.log(f.event)
	}
}
