package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Messages and options of DHCP (RFC 2131, 2132) that are known here.
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpAck      = 5
	dhcpNak      = 6
	dhcpInform   = 8

	dhcpOptMask      = 1
	dhcpOptRouter    = 3
	dhcpOptDNS       = 6
	dhcpOptHostname  = 12
	dhcpOptMTU       = 26
	dhcpOptRequested = 50
	dhcpOptLease     = 51
	dhcpOptType      = 53
	dhcpOptServer    = 54
	dhcpOptEnd       = 255

	dhcpHeader = 236
	dhcpCookie = 0x63825363
	dhcpLease  = 7 * 24 * 3600 // seconds; there is nobody else to give the address to
)

// answerDHCP answers a guest that is not set up by our agent. There is one
// address to give.
func (s *Stack) answerDHCP(b []byte) {
	m, ok := parseDHCP(b)
	if !ok || m.mac != s.addrs.MAC {
		return
	}
	guest := s.addrs.Guest4.Addr()
	reply := byte(0)
	switch m.typ {
	case dhcpDiscover:
		reply = dhcpOffer
	case dhcpInform:
		reply = dhcpAck
	case dhcpRequest:
		if m.server.IsValid() && m.server != s.addrs.Gateway4 {
			return // it takes another server's offer
		}
		reply = dhcpAck
		if want := m.requested; want.IsValid() && want != guest || !want.IsValid() && m.client != guest {
			reply = dhcpNak
		}
	default:
		return
	}
	s.sendDHCP(s.dhcpReply(&m, reply))
}

// dhcpMessage is what matters of a message of the guest.
type dhcpMessage struct {
	typ               byte
	begin             [44]byte // the fixed fields up to the client's address
	mac               [6]byte
	client            netip.Addr // ciaddr
	requested, server netip.Addr
}

func parseDHCP(b []byte) (m dhcpMessage, ok bool) {
	if len(b) < dhcpHeader+4 || b[0] != 1 || b[1] != 1 || b[2] != 6 ||
		binary.BigEndian.Uint32(b[dhcpHeader:]) != dhcpCookie {
		return m, false
	}
	copy(m.begin[:], b)
	m.mac = [6]byte(b[28:])
	m.client = netip.AddrFrom4([4]byte(b[12:]))
	for opts := b[dhcpHeader+4:]; len(opts) > 0; {
		switch opts[0] {
		case 0:
			opts = opts[1:]
			continue
		case dhcpOptEnd:
			return m, m.typ != 0
		}
		if len(opts) < 2 || len(opts) < 2+int(opts[1]) {
			return m, false
		}
		v := opts[2 : 2+int(opts[1])]
		switch {
		case opts[0] == dhcpOptType && len(v) == 1:
			m.typ = v[0]
		case opts[0] == dhcpOptRequested && len(v) == 4:
			m.requested = netip.AddrFrom4([4]byte(v))
		case opts[0] == dhcpOptServer && len(v) == 4:
			m.server = netip.AddrFrom4([4]byte(v))
		}
		opts = opts[2+len(v):]
	}
	return m, m.typ != 0
}

func (s *Stack) dhcpReply(m *dhcpMessage, typ byte) []byte {
	b := make([]byte, dhcpHeader, 576)
	copy(b, m.begin[:])
	b[0], b[3] = 2, 0
	guest, gateway := s.addrs.Guest4.Addr().As4(), s.addrs.Gateway4.As4()
	if typ != dhcpNak {
		if m.typ != dhcpInform {
			copy(b[16:], guest[:])
		}
		copy(b[20:], gateway[:])
	}
	b = binary.BigEndian.AppendUint32(b, dhcpCookie)
	opt := func(code byte, v ...byte) { b = append(append(b, code, byte(len(v))), v...) }
	opt(dhcpOptType, typ)
	opt(dhcpOptServer, gateway[:]...)
	if typ != dhcpNak {
		mask := ^uint32(0) << (32 - s.addrs.Guest4.Bits())
		opt(dhcpOptMask, binary.BigEndian.AppendUint32(nil, mask)...)
		opt(dhcpOptRouter, gateway[:]...)
		if s.cfg.DNS != nil {
			opt(dhcpOptDNS, gateway[:]...)
		}
		opt(dhcpOptMTU, binary.BigEndian.AppendUint16(nil, uint16(s.addrs.MTU))...)
		if s.cfg.Hostname != "" {
			opt(dhcpOptHostname, []byte(s.cfg.Hostname)...)
		}
		if m.typ != dhcpInform {
			opt(dhcpOptLease, binary.BigEndian.AppendUint32(nil, dhcpLease)...)
		}
	}
	return append(b, dhcpOptEnd)
}

// sendDHCP sends a message to everybody on the link, which is the guest.
func (s *Stack) sendDHCP(msg []byte) {
	from, to := s.addrs.Gateway4, netip.AddrFrom4([4]byte{255, 255, 255, 255})
	b := make([]byte, header.UDPMinimumSize, header.UDPMinimumSize+len(msg))
	h := header.UDP(b)
	h.Encode(&header.UDPFields{SrcPort: dhcpServerPort, DstPort: dhcpServerPort + 1, Length: uint16(cap(b))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, addrOf(from), addrOf(to), uint16(cap(b)))
	h.SetChecksum(^h.CalculateChecksum(checksum.Checksum(msg, sum)))
	s.sendRaw([6]byte{255, 255, 255, 255, 255, 255}, uint16(header.IPv4ProtocolNumber), ipPacket(from, to, ipProtoUDP, append(b, msg...)))
}
