package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/hutchvm/hutch/netstack/policy"
)

const (
	maxDNSInFlight = 256
	dnsTimeout     = 30 * time.Second // a handler has shorter ones of its own
	maxUDPWaiting  = 16               // datagrams that wait for a socket
	udpEvictIdle   = time.Second      // a flow idle for so long gives way to a new one
)

// udpKey names a flow of the guest; its address is always the same one.
type udpKey struct {
	port uint16
	to   netip.AddrPort
}

// udpTable holds the UDP flows of both directions.
type udpTable struct {
	mu       sync.Mutex
	flows    map[udpKey]*udpFlow
	inbound  map[uint16]*inboundFlow // by port of the gateway
	nextPort uint16
}

func (t *udpTable) init() {
	t.flows = make(map[udpKey]*udpFlow)
	t.inbound = make(map[uint16]*inboundFlow)
	t.nextPort = firstInbound
}

func (t *udpTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows) + len(t.inbound)
}

// udpFlow is a flow that the guest opened: a connected socket of the host, and a
// goroutine that reads it.
type udpFlow struct {
	s      *Stack
	key    udpKey
	policy policy.Flow
	guest  netip.AddrPort
	rule   int

	mu      sync.Mutex
	conn    net.Conn // nil while it is being opened
	waiting [][]byte
	closed  bool

	last           atomic.Int64 // nanoseconds since epoch
	sent, received atomic.Uint64
}

var epoch = time.Now()

func sinceEpoch() int64 { return int64(time.Since(epoch)) }

// handleUDP gets the datagrams of the guest, put together from fragments. It runs
// on the card's goroutine. One that it does not handle is answered by an ICMP
// error.
func (s *Stack) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.UDP(pkt.TransportHeader().Slice())
	n := int(h.Length()) - header.UDPMinimumSize
	if n < 0 || n > pkt.Data().Size() {
		s.counters.txDropped.Add(1)
		return true
	}
	var payload []byte
	if n > 0 {
		b, ok := pkt.Data().PullUp(n)
		if !ok {
			return true
		}
		payload = b
	}
	guest := netip.AddrPortFrom(netipOf(id.RemoteAddress), id.RemotePort)
	to := netip.AddrPortFrom(netipOf(id.LocalAddress), id.LocalPort)
	if to.Port() == dnsPort {
		return s.handleDNS(guest, to, payload)
	}
	key := udpKey{guest.Port(), to}
	s.udp.mu.Lock()
	if in := s.udp.inbound[to.Port()]; in != nil && s.addrs.IsHost(to.Addr()) && in.guestPort() == guest.Port() {
		s.udp.mu.Unlock()
		in.reply(payload)
		return true
	}
	f := s.udp.flows[key]
	s.udp.mu.Unlock()
	if f == nil {
		f = &udpFlow{s: s, key: key, guest: guest, policy: policy.Flow{
			Direction: policy.Egress, Proto: policy.UDP, Addr: to.Addr(), Port: to.Port(),
		}}
		d := s.decide(f.policy)
		f.rule = d.Rule
		if !d.Allow || d.NeedSNI { // there is no ClientHello to wait for
			f.log(FlowDenied, ErrDenied)
			return false
		}
		if !s.addUDP(f) {
			s.counters.limited.Add(1)
			return true
		}
	}
	f.send(payload)
	return true
}

func (s *Stack) handleDNS(guest, to netip.AddrPort, query []byte) bool {
	if s.cfg.DNS == nil {
		return false
	}
	if s.dnsBusy.Add(1) > maxDNSInFlight {
		s.dnsBusy.Add(-1)
		s.counters.limited.Add(1)
		return true
	}
	query = append([]byte(nil), query...)
	ok := s.start(func() {
		defer s.dnsBusy.Add(-1)
		ctx, cancel := context.WithTimeout(s.ctx, dnsTimeout)
		defer cancel()
		if reply := s.cfg.DNS.ServeUDP(ctx, query, to); reply != nil {
			s.sendUDP(to, guest, reply)
		}
	})
	if !ok {
		s.dnsBusy.Add(-1)
	}
	return true
}

// addUDP begins a flow. When there are too many the idlest one has to go, unless
// all of them are busy.
func (s *Stack) addUDP(f *udpFlow) bool {
	f.last.Store(sinceEpoch())
	s.udp.mu.Lock()
	var evict *udpFlow
	if len(s.udp.flows) >= MaxUDPFlows {
		limit := sinceEpoch() - int64(udpEvictIdle)
		for _, o := range s.udp.flows {
			if l := o.last.Load(); l < limit {
				evict, limit = o, l
			}
		}
		if evict == nil {
			s.udp.mu.Unlock()
			return false
		}
		delete(s.udp.flows, evict.key)
	}
	s.udp.flows[f.key] = f
	s.udp.mu.Unlock()
	if evict != nil {
		evict.close()
	}
	if !s.start(f.run) {
		f.remove()
		return false
	}
	return true
}

func (f *udpFlow) log(kind EventKind, err error) {
	f.s.log(FlowEvent{
		Kind: kind, Flow: f.policy, Guest: f.guest, Rule: f.rule, Err: err,
		Sent: f.sent.Load(), Received: f.received.Load(),
	})
}

func (f *udpFlow) remove() {
	f.s.udp.mu.Lock()
	if f.s.udp.flows[f.key] == f {
		delete(f.s.udp.flows, f.key)
	}
	f.s.udp.mu.Unlock()
}

func (f *udpFlow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.waiting = true, nil
	if f.conn != nil {
		_ = f.conn.Close()
	}
}

// send passes a datagram on. It does not wait: sockets for datagrams take one or
// lose it.
func (f *udpFlow) send(b []byte) {
	f.last.Store(sinceEpoch())
	f.sent.Add(uint64(len(b)))
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
	case f.conn != nil:
		_, _ = f.conn.Write(b) // what is wrong is seen by the reader
	case len(f.waiting) < maxUDPWaiting:
		f.waiting = append(f.waiting, append([]byte(nil), b...))
	}
}

// open opens the socket and sends what waited for it.
func (f *udpFlow) open() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(f.s.ctx, DialTimeout)
	defer cancel()
	conn, err := f.s.cfg.DialUDP(ctx, f.s.hostAddr(f.key.to))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	f.conn = conn
	for _, b := range f.waiting {
		_, _ = conn.Write(b)
	}
	f.waiting = nil
	return conn, nil
}

func (f *udpFlow) run() {
	defer f.remove()
	defer f.close()
	conn, err := f.open()
	if err != nil {
		f.log(FlowFailed, err)
		f.unreachable(err)
		return
	}
	f.log(FlowOpened, nil)
	defer context.AfterFunc(f.s.ctx, f.close)()
	err = f.receive(conn)
	f.log(FlowClosed, err)
}

// receive passes answers to the guest until the flow is idle.
func (f *udpFlow) receive(conn net.Conn) error {
	src := newSource(conn)
	_ = conn.SetReadDeadline(time.Now().Add(UDPIdle))
	for {
		buf, n, err := src.read()
		if err == nil {
			f.last.Store(sinceEpoch())
			f.received.Add(uint64(n))
			f.s.sendUDP(f.key.to, f.guest, buf[:n])
		}
		src.release(buf)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			idle := time.Duration(sinceEpoch() - f.last.Load())
			if idle >= UDPIdle {
				return nil
			}
			_ = conn.SetReadDeadline(time.Now().Add(UDPIdle - idle))
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
			// The socket lives on, and so may the other end.
			f.unreachable(err)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			return err
		}
	}
}

// unreachable tells the guest what the host's kernel was told.
func (f *udpFlow) unreachable(err error) {
	code := unreachablePort
	switch {
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		code = unreachableHost
	case errors.Is(err, net.ErrClosed):
		return
	}
	f.s.sendUnreachable(ipProtoUDP, f.guest, f.key.to, code)
}

// sendUDP sends a datagram to the guest, in fragments if it is large.
func (s *Stack) sendUDP(from, to netip.AddrPort, payload []byte) {
	r, err := s.ip.FindRoute(nicID, addrOf(from.Addr()), addrOf(to.Addr()), protocolOf(from.Addr()), false)
	if err != nil {
		return
	}
	defer r.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	n := uint16(header.UDPMinimumSize + len(payload))
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	pkt.TransportProtocolNumber = header.UDPProtocolNumber
	h.Encode(&header.UDPFields{SrcPort: from.Port(), DstPort: to.Port(), Length: n})
	sum := checksum.Combine(r.PseudoHeaderChecksum(header.UDPProtocolNumber, n), checksum.Checksum(payload, 0))
	if sum = ^h.CalculateChecksum(sum); sum == 0 {
		sum = 0xffff
	}
	h.SetChecksum(sum)
	_ = r.WritePacket(stack.NetworkHeaderParams{Protocol: header.UDPProtocolNumber, TTL: 64}, pkt)
}
