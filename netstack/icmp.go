package netstack

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/hutchvm/hutch/netstack/policy"
)

const (
	maxPingFlows = 64
	pingIdle     = 20 * time.Second
	echoHeader   = 8
)

// unreachableCode says why, for both families (RFC 792, RFC 4443).
type unreachableCode struct{ v4, v6 uint8 }

var (
	unreachableHost  = unreachableCode{1, 3}
	unreachablePort  = unreachableCode{3, 4}
	unreachableAdmin = unreachableCode{13, 1}
)

// pingKey names the echo requests of one program in the guest.
type pingKey struct {
	to netip.Addr
	id uint16
}

// pingTable holds the echo sockets. The host's kernel chooses identifiers of its
// own for them and gives each its answers only.
type pingTable struct {
	mu    sync.Mutex
	flows map[pingKey]*pingFlow
	open  func(to netip.Addr) (net.PacketConn, error) // nil: openPing; for tests
}

type pingFlow struct {
	s    *Stack
	key  pingKey
	conn net.PacketConn
	peer net.Addr
}

// openPing opens an unprivileged echo socket, where the host allows it
// (net.ipv4.ping_group_range).
func openPing(to netip.Addr) (net.PacketConn, error) {
	if to.Is4() {
		return icmp.ListenPacket("udp4", "0.0.0.0")
	}
	return icmp.ListenPacket("udp6", "::")
}

// local answers what neither the stack nor the host's sockets are for. p is a
// whole IP packet that checkIPv4 or checkIPv6 looked at.
func (s *Stack) local(proto tcpip.NetworkProtocolNumber, p []byte) {
	if proto == header.IPv4ProtocolNumber {
		h := header.IPv4(p)
		body := p[header.IPv4MinimumSize:h.TotalLength()]
		if h.Protocol() == ipProtoUDP {
			s.answerDHCP(body[header.UDPMinimumSize:])
		} else {
			s.echo(netipOf(h.DestinationAddress()), body)
		}
		return
	}
	h := header.IPv6(p)
	body := p[header.IPv6MinimumSize:][:h.PayloadLength()]
	switch body[0] {
	case icmp6Echo:
		s.echo(netipOf(h.DestinationAddress()), body)
	case icmp6NeighborSol:
		s.answerNeighbor(netipOf(h.SourceAddress()), body)
	case icmp6RouterSol:
		// Nobody here advertises routes: the agent sets them.
	}
}

// echo passes an echo request of the guest on.
func (s *Stack) echo(to netip.Addr, body []byte) {
	key := pingKey{to, binary.BigEndian.Uint16(body[4:])}
	guest := s.guestOf(to)
	s.pings.mu.Lock()
	f := s.pings.flows[key]
	full := len(s.pings.flows) >= maxPingFlows
	s.pings.mu.Unlock()
	if f == nil {
		pf := policy.Flow{Direction: policy.Egress, Proto: policy.ICMP, Addr: to}
		ev := FlowEvent{Kind: FlowDenied, Flow: pf, Guest: netip.AddrPortFrom(guest, 0)}
		d := s.decide(pf)
		ev.Rule = d.Rule
		if !d.Allow {
			ev.Err = ErrDenied
			s.log(ev)
			s.echoUnreachable(to, body, unreachableAdmin)
			return
		}
		if full {
			s.counters.limited.Add(1)
			return
		}
		open := s.pings.open
		if open == nil {
			open = openPing
		}
		conn, err := open(to)
		if err != nil {
			ev.Kind, ev.Err = FlowFailed, err
			s.log(ev)
			s.echoUnreachable(to, body, unreachableAdmin)
			return
		}
		f = &pingFlow{s: s, key: key, conn: conn, peer: &net.UDPAddr{IP: to.AsSlice()}}
		if !s.addPing(f) {
			return
		}
	}
	s.counters.pings.Add(1)
	_ = f.conn.SetReadDeadline(time.Now().Add(pingIdle))
	if _, err := f.conn.WriteTo(body, f.peer); err != nil {
		s.echoUnreachable(to, body, unreachableHost)
	}
}

func (s *Stack) addPing(f *pingFlow) bool {
	s.pings.mu.Lock()
	if s.pings.flows == nil {
		s.pings.flows = make(map[pingKey]*pingFlow)
	}
	s.pings.flows[f.key] = f
	s.pings.mu.Unlock()
	if s.start(f.run) {
		return true
	}
	f.close()
	return false
}

func (f *pingFlow) close() {
	f.s.pings.mu.Lock()
	delete(f.s.pings.flows, f.key)
	f.s.pings.mu.Unlock()
	_ = f.conn.Close()
}

// run passes the answers to the guest.
func (f *pingFlow) run() {
	defer f.close()
	defer context.AfterFunc(f.s.ctx, func() { _ = f.conn.Close() })()
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, _, err := f.conn.ReadFrom(buf[:])
		if err != nil {
			return
		}
		if n < echoHeader || n > 65535-header.IPv6MinimumSize {
			continue
		}
		b := append([]byte(nil), buf[:n]...)
		reply := byte(0)
		if f.key.to.Is6() {
			reply = icmp6Echo + 1
		}
		if b[0] != reply {
			continue
		}
		binary.BigEndian.PutUint16(b[4:], f.key.id)
		f.s.sendICMP(f.key.to, f.s.guestOf(f.key.to), b)
	}
}

func (s *Stack) guestOf(family netip.Addr) netip.Addr {
	if family.Is4() {
		return s.addrs.Guest4.Addr()
	}
	return s.addrs.Guest6.Addr()
}

// echoUnreachable answers an echo request by an error.
func (s *Stack) echoUnreachable(to netip.Addr, body []byte, code unreachableCode) {
	proto := uint8(ipProtoICMP)
	if to.Is6() {
		proto = ipProtoICMP6
	}
	s.sendError(proto, s.guestOf(to), to, body[:echoHeader], code)
}

// sendUnreachable tells the guest that a datagram did not arrive.
func (s *Stack) sendUnreachable(proto uint8, guest, to netip.AddrPort, code unreachableCode) {
	var b [8]byte
	binary.BigEndian.PutUint16(b[0:], guest.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], 8)
	s.sendError(proto, guest.Addr(), to.Addr(), b[:], code)
}

// sendError sends an ICMP error about a packet of the guest, of which begin are the
// first 8 bytes behind the IP header.
func (s *Stack) sendError(proto uint8, guest, to netip.Addr, begin []byte, code unreachableCode) {
	s.counters.unreachable.Add(1)
	orig := ipPacket(guest, to, proto, begin)
	b := make([]byte, 8, 8+len(orig))
	b[0], b[1] = 3, code.v4
	if to.Is6() {
		b[0], b[1] = 1, code.v6
	}
	s.sendICMP(to, guest, append(b, orig...))
}

// sendICMP sends an ICMP message to the guest, whose checksum is filled in here.
func (s *Stack) sendICMP(from, to netip.Addr, body []byte) {
	proto := uint8(ipProtoICMP)
	sum := uint16(0)
	if from.Is6() {
		proto = ipProtoICMP6
		sum = header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, addrOf(from), addrOf(to), uint16(len(body)))
	}
	binary.BigEndian.PutUint16(body[2:], 0)
	binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, sum))
	packet := ipPacket(from, to, proto, body)
	if len(packet) > s.addrs.MTU {
		return // an answer larger than any request that was let through
	}
	s.sendRaw(s.addrs.MAC, uint16(protocolOf(from)), packet)
}

// ipPacket puts a header before a body.
func ipPacket(from, to netip.Addr, proto uint8, body []byte) []byte {
	if from.Is4() {
		b := make([]byte, header.IPv4MinimumSize, header.IPv4MinimumSize+len(body))
		h := header.IPv4(b)
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(cap(b)), TTL: 64, Protocol: proto,
			SrcAddr: addrOf(from), DstAddr: addrOf(to),
		})
		h.SetChecksum(^h.CalculateChecksum())
		return append(b, body...)
	}
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(body))
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(body)), TransportProtocol: tcpip.TransportProtocolNumber(proto),
		HopLimit: 255, SrcAddr: addrOf(from), DstAddr: addrOf(to),
	})
	return append(b, body...)
}

// sendRaw sends a packet of our own making.
func (s *Stack) sendRaw(dst [6]byte, etherType uint16, packet []byte) {
	b := make([]byte, 0, ethLen+len(packet))
	b = append(append(b, dst[:]...), s.addrs.GatewayMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	s.link.sendRaw(append(b, packet...))
}
