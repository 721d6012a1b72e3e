package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// verdict is what becomes of a packet of the guest.
type verdict uint8

const (
	verdictDrop  verdict = iota
	verdictStack         // TCP, UDP, and what belongs to them
	verdictLocal         // answered by this package: echo, neighbor discovery, DHCP
)

const (
	// headLen is what is copied of a frame before it is judged: an Ethernet
	// header, an IPv6 header, a fragment header and 8 bytes more.
	headLen = ethLen + header.IPv6MinimumSize + 16

	ipProtoICMP  = 1
	ipProtoTCP   = 6
	ipProtoUDP   = 17
	ipProtoFrag6 = 44
	ipProtoICMP6 = 58

	icmpEcho         = 8
	icmp6Echo        = 128
	icmp6RouterSol   = 133
	icmp6NeighborSol = 135

	dhcpServerPort = 67
)

// checkIPv4 judges an IPv4 packet of n bytes by its first ones. The stack gets
// little to see: no options, no source but the guest's address, no destination
// that means this host in a way that the policy would not recognize.
func (s *Stack) checkIPv4(b []byte, n int) verdict {
	if len(b) < header.IPv4MinimumSize || b[0] != 4<<4|5 || !s.addrs.Guest4.IsValid() {
		return verdictDrop
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total < header.IPv4MinimumSize || total > n {
		return verdictDrop
	}
	h := header.IPv4(b)
	src, dst := netipOf(h.SourceAddress()), netipOf(h.DestinationAddress())
	fragment := h.More() || h.FragmentOffset() != 0
	body := b[header.IPv4MinimumSize:min(len(b), total)]
	toGateway := dst == s.addrs.Gateway4
	if h.Protocol() == ipProtoUDP && !fragment && len(body) >= 8 && binary.BigEndian.Uint16(body[2:]) == dhcpServerPort &&
		(toGateway || dst.As4() == [4]byte{255, 255, 255, 255}) {
		if src.IsUnspecified() || src == s.addrs.Guest4.Addr() {
			return verdictLocal
		}
	}
	if src != s.addrs.Guest4.Addr() || !usable(dst) || !toGateway && s.addrs.Guest4.Contains(dst) {
		return verdictDrop
	}
	switch h.Protocol() {
	case ipProtoTCP, ipProtoUDP:
		return verdictStack
	case ipProtoICMP:
		if toGateway {
			return verdictStack
		}
		if fragment || len(body) < 8 {
			return verdictDrop
		}
		switch body[0] {
		case icmpEcho:
			return verdictLocal
		case 3, 11, 12: // unreachable, time exceeded, parameter problem
			return verdictStack
		}
	}
	return verdictDrop
}

// checkIPv6 is like checkIPv4. Of the extension headers only that of fragments
// is known.
func (s *Stack) checkIPv6(b []byte, n int) verdict {
	if len(b) < header.IPv6MinimumSize || b[0]>>4 != 6 || !s.addrs.Guest6.IsValid() {
		return verdictDrop
	}
	h := header.IPv6(b)
	if int(h.PayloadLength())+header.IPv6MinimumSize > n {
		return verdictDrop
	}
	src, dst := netipOf(h.SourceAddress()), netipOf(h.DestinationAddress())
	body := b[header.IPv6MinimumSize:min(len(b), header.IPv6MinimumSize+int(h.PayloadLength()))]
	next := h.NextHeader()
	if next == ipProtoICMP6 && len(body) >= 8 && (body[0] == icmp6NeighborSol || body[0] == icmp6RouterSol) {
		if src == s.addrs.Guest6.Addr() || src.IsLinkLocalUnicast() || src.IsUnspecified() {
			return verdictLocal
		}
		return verdictDrop
	}
	toGateway := dst == s.addrs.Gateway6
	if src != s.addrs.Guest6.Addr() || !usable(dst) || dst.IsLinkLocalUnicast() || !toGateway && s.addrs.Guest6.Contains(dst) {
		return verdictDrop
	}
	if next == ipProtoFrag6 {
		if len(body) < 8 || body[0] != ipProtoTCP && body[0] != ipProtoUDP && !(body[0] == ipProtoICMP6 && toGateway) {
			return verdictDrop
		}
		return verdictStack
	}
	switch next {
	case ipProtoTCP, ipProtoUDP:
		return verdictStack
	case ipProtoICMP6:
		switch {
		case len(body) < 8:
		case toGateway || body[0] >= 1 && body[0] <= 4: // errors
			return verdictStack
		case body[0] == icmp6Echo:
			return verdictLocal
		}
	}
	return verdictDrop
}
