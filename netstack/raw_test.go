package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// sendFrame transmits raw bytes.
func (g *guest) sendFrame(b []byte) {
	g.t.Helper()
	if !g.send([vhdr]byte{}, b) {
		g.t.Fatal("no transmit buffer came back")
	}
}

func ethernet(src, dst [6]byte, typ uint16, body []byte) []byte {
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, typ), body...)
}

// sendPacket transmits an IP packet from the guest's station.
func (g *guest) sendPacket(p []byte) {
	g.t.Helper()
	typ := uint16(header.IPv4ProtocolNumber)
	if p[0]>>4 == 6 {
		typ = uint16(header.IPv6ProtocolNumber)
	}
	g.sendFrame(ethernet(GuestMAC, GatewayMAC, typ, p))
}

// synPacket is a SYN to 198.51.100.7.
func synPacket(g *guest, from, to uint16, options []byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := make([]byte, 20, 20+len(options))
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], 1000)
	b = append(b, options...)
	b[12], b[13] = byte(len(b)/4)<<4, 2
	binary.BigEndian.PutUint16(b[14:], 65000)
	return ipPacket(g.s.addrs.Guest4.Addr(), netip.MustParseAddr("198.51.100.7"), ipProtoTCP, b)
}

// expect waits for a frame that matches.
func expect(t *testing.T, frames <-chan []byte, what string, match func([]byte) bool) []byte {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case f := <-frames:
			if match(f) {
				return f
			}
		case <-timeout:
			t.Fatalf("no %s", what)
		}
	}
}

func TestARP(t *testing.T) {
	g := newGuest(t, Config{})
	frames := g.frames()
	ask := func(target [4]byte) {
		b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
		b = append(b, GuestMAC[:]...)
		b = append(b, 10, 203, 0, 2, 0, 0, 0, 0, 0, 0)
		g.sendFrame(ethernet(GuestMAC, [6]byte{255, 255, 255, 255, 255, 255}, 0x806, append(b, target[:]...)))
	}
	ask([4]byte{10, 203, 0, 9}) // nobody
	ask([4]byte{10, 203, 0, 1})
	f := expect(t, frames, "ARP reply", func(f []byte) bool { return f[12] == 8 && f[13] == 6 })
	if [6]byte(f[22:28]) != GatewayMAC || [4]byte(f[28:32]) != [4]byte{10, 203, 0, 1} || f[21] != 2 {
		t.Errorf("reply % x", f)
	}
}

func TestNeighborDiscovery(t *testing.T) {
	g := newGuest(t, Config{})
	frames := g.frames()
	gw := g.s.addrs.Gateway6
	for _, from := range []netip.Addr{g.s.addrs.Guest6.Addr(), netip.MustParseAddr("fe80::1:2"), netip.IPv6Unspecified()} {
		b := make([]byte, 24)
		b[0] = icmp6NeighborSol
		copy(b[8:], gw.AsSlice())
		g.sendPacket(ipPacket(from, netip.MustParseAddr("ff02::1:ff00:1"), ipProtoICMP6, b))
		f := expect(t, frames, "neighbor advertisement", func(f []byte) bool { return len(f) > 60 && f[14+40] == 136 })
		if [6]byte(f[14+40+26:]) != GatewayMAC {
			t.Errorf("advertisement % x", f)
		}
		p := f[14:]
		if sum := checksum.Checksum(p[40:], header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber,
			header.IPv6(p).SourceAddress(), header.IPv6(p).DestinationAddress(), uint16(len(p)-40))); sum != 0xffff {
			t.Errorf("checksum is off by %#x", sum)
		}
	}
}

func TestDHCP(t *testing.T) {
	g := newGuest(t, Config{Hostname: "box", DNS: &dnsEcho{}})
	frames := g.frames()
	message := func(typ byte, opts ...byte) []byte {
		b := make([]byte, dhcpHeader)
		b[0], b[1], b[2] = 1, 1, 6
		copy(b[4:], "xid!")
		copy(b[28:], GuestMAC[:])
		b = binary.BigEndian.AppendUint32(b, dhcpCookie)
		b = append(append(b, dhcpOptType, 1, typ), opts...)
		b = append(b, dhcpOptEnd)
		u := make([]byte, 8)
		binary.BigEndian.PutUint16(u[0:], 68)
		binary.BigEndian.PutUint16(u[2:], 67)
		binary.BigEndian.PutUint16(u[4:], uint16(8+len(b)))
		return ipPacket(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), ipProtoUDP, append(u, b...))
	}
	for _, tt := range []struct {
		typ  byte
		opts []byte
		want byte
	}{
		{dhcpDiscover, nil, dhcpOffer},
		{dhcpRequest, []byte{dhcpOptRequested, 4, 10, 203, 0, 2, dhcpOptServer, 4, 10, 203, 0, 1}, dhcpAck},
		{dhcpRequest, []byte{dhcpOptRequested, 4, 10, 0, 0, 9}, dhcpNak},
	} {
		g.sendPacket(message(tt.typ, tt.opts...))
		f := expect(t, frames, "DHCP answer", func(f []byte) bool { return len(f) > 280 && f[23] == 17 })
		d := f[14+28:]
		if d[0] != 2 || string(d[4:8]) != "xid!" || [6]byte(d[28:]) != GuestMAC || d[242] != tt.want {
			t.Errorf("answer to %d: % x", tt.typ, d)
		}
		if tt.want != dhcpNak && [4]byte(d[16:]) != [4]byte{10, 203, 0, 2} {
			t.Errorf("address %v", d[16:20])
		}
	}
}

// TestSpoofed sends from addresses that are not the guest's, and to those that
// would be the host itself in disguise.
func TestSpoofed(t *testing.T) {
	w := newWorld()
	cfg := w.config()
	cfg.Decide = func(f policyFlow) policyDecision {
		t.Errorf("a flow to %v:%d", f.Addr, f.Port)
		return policyDecision{}
	}
	g := newGuest(t, cfg)
	good := synPacket(g, 1, 80, nil)
	with := func(off int, b ...byte) []byte {
		p := append([]byte(nil), good...)
		copy(p[off:], b)
		return p
	}
	packets := [][]byte{
		with(12, 10, 203, 0, 1), with(12, 8, 8, 8, 8), with(12, 0, 0, 0, 0), with(12, 127, 0, 0, 1), // from
		with(16, 127, 0, 0, 1), with(16, 0, 0, 0, 0), with(16, 224, 0, 0, 1), with(16, 255, 255, 255, 255), // to
		with(16, 10, 203, 0, 2), with(16, 10, 203, 0, 3), with(16, 0, 1, 2, 3),
		with(0, 0x46), with(0, 0x65), with(0, 0x40), // options, versions, lengths
		with(2, 0, 10), with(2, 255, 255), good[:19], good[:0],
		with(9, 2), with(9, 47), with(9, 132), with(9, 1), // IGMP, GRE, SCTP, half an ICMP
	}
	for _, to := range []string{"::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "ff02::1", "fe80::1", "fd68:7574:6368::2", "fd68:7574:6368::77"} {
		packets = append(packets, ipPacket(g.s.addrs.Guest6.Addr(), netip.MustParseAddr(to), ipProtoTCP, good[20:]))
	}
	dst6 := netip.MustParseAddr("2001:db8::1")
	for _, next := range []uint8{0, 43, 60, 50, 59, 41, 4} { // extension headers, tunnels
		packets = append(packets, ipPacket(g.s.addrs.Guest6.Addr(), dst6, next, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, good[20:]...)))
	}
	packets = append(packets, ipPacket(netip.MustParseAddr("2001:db8::2"), dst6, ipProtoTCP, good[20:]),
		ipPacket(netip.MustParseAddr("fe80::5"), dst6, ipProtoTCP, good[20:]))
	for _, p := range packets {
		typ := uint16(0x800)
		if len(p) > 0 && p[0]>>4 == 6 && len(p) >= 40 {
			typ = 0x86dd
		}
		g.sendFrame(ethernet(GuestMAC, GatewayMAC, typ, p))
	}
	// Another station, other protocols.
	g.sendFrame(ethernet([6]byte{2, 1, 1, 1, 1, 1}, GatewayMAC, 0x800, good))
	g.sendFrame(ethernet(GuestMAC, GatewayMAC, 0x88cc, good))
	g.sendFrame(ethernet(GuestMAC, GatewayMAC, 0x8100, good))
	want := uint64(len(packets) + 3)
	for end := time.Now().Add(10 * time.Second); g.s.Stats().TxDropped < want && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := g.s.Stats().TxDropped; got != want {
		t.Errorf("%d of %d were dropped", got, want)
	}
	g.d.CheckHealthy()
}

// TestHostileTCP sends options that lie about their lengths, data offsets outside
// the segment, and floods of half connections.
func TestHostileTCP(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, echoAll)
	g := newGuest(t, w.config())
	for i, opts := range [][]byte{
		{2, 0, 5, 180}, {2, 1}, {2, 255, 1, 1}, {3, 0, 0, 0}, {8, 0, 0, 0, 0, 0, 0, 0}, {4, 0}, {5, 0, 0, 0}, {0xfe, 0},
		{1, 1, 1, 2}, {2, 4, 0, 0}, {2, 4, 0, 1}, {3, 3, 255, 0},
	} {
		g.sendPacket(synPacket(g, 2000+uint16(i), 80, opts))
	}
	for _, off := range []byte{0x00, 0x40, 0xf0} {
		p := synPacket(g, 3000, 80, nil)
		p[20+12] = off
		g.sendPacket(p)
	}
	for i := range 1000 {
		g.sendPacket(synPacket(g, 10000+uint16(i), 80, []byte{2, 4, 5, 180}))
	}
	if st := g.s.Stats(); st.TCPFlows > DefaultMaxConnections {
		t.Errorf("%d flows", st.TCPFlows)
	}
	g.abortAll()
	g.d.CheckHealthy()
	if err := g.s.Close(); err != nil {
		t.Error(err)
	}
}

// TestHostileFragments sends fragments that overlap, never end, or make a packet
// of more than 64 KiB.
func TestHostileFragments(t *testing.T) {
	w := newWorld()
	w.echoUDP(t, udp4)
	g := newGuest(t, w.config())
	to := netip.MustParseAddrPort(udp4).Addr()
	frag := func(id uint16, off int, more bool, body []byte) {
		p := ipPacket(g.s.addrs.Guest4.Addr(), to, ipProtoUDP, body)
		binary.BigEndian.PutUint16(p[4:], id)
		v := uint16(off / 8)
		if more {
			v |= 1 << 13
		}
		binary.BigEndian.PutUint16(p[6:], v)
		binary.BigEndian.PutUint16(p[10:], 0)
		h := header.IPv4(p)
		h.SetChecksum(^h.CalculateChecksum())
		g.sendPacket(p)
	}
	body := pattern(1400)
	frag(1, 0, true, body)
	frag(1, 8, true, body) // overlaps
	frag(1, 1400, false, body)
	frag(2, 65528, false, body) // ends behind 64 KiB
	frag(3, 0, true, body[:9])  // not a multiple of 8
	for i := range 5000 {       // no ends
		frag(uint16(100+i), 0, true, body)
	}
	frag6 := make([]byte, 8+1200)
	frag6[0] = ipProtoUDP
	frag6[3] = 1
	for i := range 1000 {
		binary.BigEndian.PutUint32(frag6[4:], uint32(i))
		g.sendPacket(ipPacket(g.s.addrs.Guest6.Addr(), netip.MustParseAddr("2001:db8::9"), ipProtoFrag6, frag6))
	}
	if st := g.s.Stats(); st.UDPFlows != 0 {
		t.Errorf("%d flows came of it", st.UDPFlows)
	}
	// Good ones still pass.
	c := g.udp(0, udp4)
	if _, err := c.Write(body); err != nil {
		t.Fatal(err)
	}
	mustRead(t, c, body)
	g.d.CheckHealthy()
}

// FuzzFrame sends any frame, from the guest's station or not.
func FuzzFrame(f *testing.F) {
	s, err := New(Config{IPv4: On, IPv6: On, Decide: func(policyFlow) policyDecision { return policyDecision{} }, DNS: &dnsEcho{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	g := attachGuest(f, s)
	good := synPacket(g, 1, 80, []byte{2, 4, 5, 180})
	f.Add(uint16(0x800), good, byte(0), uint16(0))
	f.Add(uint16(0x806), []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 'h', 'u', 't', 'c', 'h', 10, 203, 0, 2, 0, 0, 0, 0, 0, 0, 10, 203, 0, 1}, byte(0), uint16(0))
	f.Add(uint16(0x86dd), ipPacket(s.addrs.Guest6.Addr(), s.addrs.Gateway6, ipProtoICMP6, make([]byte, 24)), byte(0), uint16(0))
	f.Add(uint16(0x86dd), ipPacket(s.addrs.Guest6.Addr(), netip.MustParseAddr("2001:db8::1"), ipProtoUDP, make([]byte, 24)), byte(4), uint16(1000))
	f.Add(uint16(0x800), ipPacket(s.addrs.Guest4.Addr(), s.addrs.Gateway4, ipProtoUDP, []byte{0, 9, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4}), byte(0), uint16(0))
	f.Fuzz(func(t *testing.T, typ uint16, body []byte, gso byte, size uint16) {
		if len(body) > 60000 {
			return
		}
		g.t, g.d.TB = t, t
		defer func() { g.t, g.d.TB = f, f }()
		var h [vhdr]byte
		if gso != 0 {
			h[0], h[1] = 1, gso
			binary.LittleEndian.PutUint16(h[4:], size)
			binary.LittleEndian.PutUint16(h[6:], 34)
			binary.LittleEndian.PutUint16(h[8:], 16)
		}
		g.send(h, ethernet(GuestMAC, GatewayMAC, typ, body))
		g.d.CheckHealthy()
	})
}
