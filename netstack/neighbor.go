package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// answerARP answers who asks for the gateway's address. Nobody else is there.
func (s *Stack) answerARP(b []byte) {
	const size = 28
	if len(b) < size || !s.addrs.Gateway4.IsValid() {
		s.link.drop()
		return
	}
	// Ethernet, IPv4, request.
	if [8]byte(b) != [8]byte{0, 1, 8, 0, 6, 4, 0, 1} || [6]byte(b[8:]) != s.addrs.MAC ||
		netip.AddrFrom4([4]byte(b[24:])) != s.addrs.Gateway4 {
		return // also an announcement of the guest's own
	}
	r := append(make([]byte, 0, size), b[:7]...)
	r = append(r, 2)
	r = append(r, s.addrs.GatewayMAC[:]...)
	r = append(r, b[24:28]...)
	r = append(append(r, b[8:14]...), b[14:18]...)
	s.sendRaw(s.addrs.MAC, uint16(header.ARPProtocolNumber), r)
}

// answerNeighbor answers a neighbor solicitation for the gateway (RFC 4861, 4.3).
func (s *Stack) answerNeighbor(from netip.Addr, body []byte) {
	const flagRouter, flagSolicited, flagOverride = 1 << 31, 1 << 30, 1 << 29
	if len(body) < 24 || netip.AddrFrom16([16]byte(body[8:24])) != s.addrs.Gateway6 {
		return
	}
	to, flags := from, uint32(flagRouter|flagSolicited|flagOverride)
	if from.IsUnspecified() {
		// It wants to have that address itself: tell everybody that it is taken.
		to, flags = netip.IPv6LinkLocalAllNodes(), flagRouter|flagOverride
	}
	b := make([]byte, 4, 32)
	b[0] = 136
	b = binary.BigEndian.AppendUint32(b, flags)
	b = append(b, body[8:24]...)
	b = append(append(b, 2, 1), s.addrs.GatewayMAC[:]...) // target link-layer address
	s.sendICMP(s.addrs.Gateway6, to, b)
}
