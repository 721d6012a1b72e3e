package netstack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	vnet "github.com/hutchvm/hutch/virtio/net"
	"github.com/hutchvm/hutch/virtio/virtq"
)

type addrPort = netip.AddrPort

// fakePing answers echo requests as the host's kernel would, with an identifier
// of its own.
type fakePing struct {
	net.PacketConn
	v6 bool
}

func (f fakePing) WriteTo(b []byte, to net.Addr) (int, error) {
	r := append([]byte(nil), b...)
	if r[0] = 0; f.v6 {
		r[0] = 129
	}
	binary.BigEndian.PutUint16(r[4:], 0x7777)
	return f.PacketConn.WriteTo(r, f.LocalAddr())
}

func TestPing(t *testing.T) {
	g := newGuest(t, Config{Decide: func(f policyFlow) policyDecision {
		return policyDecision{Allow: f.Addr != netip.MustParseAddr("192.0.2.66")}
	}})
	g.s.pings.open = func(to netip.Addr) (net.PacketConn, error) {
		if to == netip.MustParseAddr("192.0.2.77") {
			return nil, errors.New("not permitted")
		}
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		return fakePing{c, to.Is6()}, err
	}
	frames := g.frames()
	echo := func(to string, size int) {
		a := netip.MustParseAddr(to)
		b := make([]byte, 8+size)
		proto := uint8(ipProtoICMP)
		if b[0] = icmpEcho; a.Is6() {
			b[0], proto = icmp6Echo, ipProtoICMP6
		}
		binary.BigEndian.PutUint16(b[4:], 0x1234)
		binary.BigEndian.PutUint16(b[6:], 9)
		copy(b[8:], pattern(size))
		if a.Is4() {
			binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, 0))
		}
		g.sendPacket(ipPacket(g.s.guestOf(a), a, proto, b))
	}
	for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, size := range []int{0, 56, 1400} {
			echo(to, size)
			expect(t, frames, "echo reply", func(f []byte) bool {
				p, h := f[14:], 20
				if p[0]>>4 == 6 {
					h = 40
				}
				return (p[h] == 0 || p[h] == 129) && netip.MustParseAddr(to) == addrIn(p) &&
					binary.BigEndian.Uint16(p[h+4:]) == 0x1234 && bytes.Equal(p[h+8:], pattern(size))
			})
		}
	}
	echo("10.203.0.1", 10) // the gateway answers itself
	expect(t, frames, "echo reply of the gateway", func(f []byte) bool { return f[14+20] == 0 && f[14+9] == 1 })
	for _, to := range []string{"192.0.2.66", "192.0.2.77"} {
		echo(to, 10)
		expect(t, frames, "unreachable", func(f []byte) bool {
			return f[14+9] == 1 && f[34] == 3 && f[35] == 13 && binary.BigEndian.Uint16(f[34+8+20+4:]) == 0x1234
		})
	}
	if n := g.s.Stats().Pings; n != 6 {
		t.Errorf("%d pings", n)
	}
}

// addrIn is the source of a packet.
func addrIn(p []byte) netip.Addr {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[12:]))
	}
	return netip.AddrFrom16([16]byte(p[8:]))
}

// TestRate sends with a limit in each direction.
func TestRate(t *testing.T) {
	const rate, size = 4 << 20, 2 << 20
	for _, dir := range []string{"transmit", "receive"} {
		w := newWorld()
		w.serve(t, web4, func(c *net.TCPConn) {
			defer c.Close()
			if dir == "transmit" {
				n, _ := io.Copy(io.Discard, c)
				_, _ = c.Write(make([]byte, n>>20))
				return
			}
			_, _ = c.Write(make([]byte, size))
		})
		cfg := w.config()
		if dir == "transmit" {
			cfg.Transmit.BytesPerSecond = rate
		} else {
			cfg.Receive.BytesPerSecond = rate
		}
		g := newGuest(t, cfg)
		c := g.mustDial(web4)
		start := time.Now()
		if dir == "transmit" {
			_, _ = c.Write(make([]byte, size))
		}
		_ = c.CloseWrite()
		n, err := io.Copy(io.Discard, c)
		took := time.Since(start)
		if err != nil || dir == "receive" && n != size || dir == "transmit" && n != size>>20 {
			t.Errorf("%s: %d, %v", dir, n, err)
		}
		if took < 350*time.Millisecond || took > 5*time.Second {
			t.Errorf("%s: %d bytes took %v at %d a second", dir, size, took, rate)
		}
	}
}

func TestBucket(t *testing.T) {
	now := time.Now()
	var b bucket
	b.init(Rate{BytesPerSecond: 1000, PacketsPerSecond: 10, Burst: time.Second}, now)
	if w := b.take(now, 3000, 1); w != 0 {
		t.Errorf("a large frame waits %v with full buckets", w)
	}
	if w := b.take(now, 1, 1); w < 2*time.Second || w > 2100*time.Millisecond {
		t.Errorf("waits %v for 2000 bytes of debt", w)
	}
	now = now.Add(2500 * time.Millisecond)
	for i := range 10 {
		if w := b.take(now, 0, 1); w != 0 {
			t.Errorf("packet %d waits %v", i, w)
		}
	}
	if w := b.take(now, 0, 1); w < 90*time.Millisecond || w > 110*time.Millisecond {
		t.Errorf("waits %v for a packet", w)
	}
	if b.init(Rate{}, now); b.limited {
		t.Error("no limit is a limit")
	}
}

// TestIdle measures what a network costs that nobody uses.
func TestIdle(t *testing.T) {
	const n = 20
	measure := func() (uint64, int) {
		for range 4 { // also what pools hold, and what finalizers let go
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
	}
	if s, err := New(Config{IPv4: On, IPv6: On}); err == nil {
		s.Close()
	}
	mem, routines := measure()
	var all []*Stack
	for range n {
		s, err := New(Config{IPv4: On, IPv6: On})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	mem2, routines2 := measure()
	each := (int64(mem2) - int64(mem)) / n
	t.Logf("%d KiB and %d goroutines each", each>>10, (routines2-routines)/n)
	if each > 1<<20 {
		t.Errorf("%d bytes for an idle network", each)
	}
	for _, s := range all {
		s.Close()
	}
}

func TestConfig(t *testing.T) {
	for field, cfg := range map[string]Config{
		"IPv4Pool":       {IPv4Pool: netip.MustParsePrefix("10.0.0.0/31")},
		"IPv6Pool":       {IPv6Pool: netip.MustParsePrefix("fd00::/65")},
		"MTU":            {MTU: 500},
		"MaxConnections": {MaxConnections: 5000},
		"Transmit":       {Transmit: Rate{BytesPerSecond: -1}},
		"Hostname":       {Hostname: strings.Repeat("x", 256)},
		"IPv4, IPv6":     {IPv4: Off, IPv6: Off},
		"Pairs":          {QueuePairs: 99},
	} {
		if _, err := New(cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	s, err := New(Config{IPv4Pool: netip.MustParsePrefix("172.30.5.8/29"), IPv6: Off})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := s.Addresses()
	if a.Guest4.String() != "172.30.5.10/29" || a.Gateway4.String() != "172.30.5.9" || a.Guest6.IsValid() || len(a.DNS()) != 1 {
		t.Errorf("%+v", a)
	}
}

// TestNoAllocationPerSegment sends segments of the guest from the card's backend
// to a socket.
func TestNoAllocationPerSegment(t *testing.T) {
	w := newWorld()
	var got atomic.Int64
	w.serve(t, web4, func(c *net.TCPConn) {
		defer c.Close()
		b := make([]byte, 256<<10)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			got.Add(int64(n))
		}
	})
	g := newGuest(t, w.config())
	g.mute.Store(4242)
	frames := g.frames()
	g.sendPacket(synPacket(g, 4242, 80, nil))
	f := expect(t, frames, "SYN-ACK", func(f []byte) bool { return len(f) >= 54 && f[14+9] == 6 && f[47] == 0x12 })
	ack := binary.BigEndian.Uint32(f[38:]) + 1
	// From here on the guest receives nothing, so that only the path itself is
	// measured.
	g.s.Device().SetLink(false)
	const size = 60000
	payload := pattern(size)
	tcp := make([]byte, 20, 20+size)
	binary.BigEndian.PutUint16(tcp[0:], 4242)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13] = 5<<4, 0x18
	binary.BigEndian.PutUint16(tcp[14:], 65000)
	frame := ethernet(GuestMAC, GatewayMAC, 0x800, ipPacket(g.s.addrs.Guest4.Addr(), netip.MustParseAddr("198.51.100.7"), ipProtoTCP, append(tcp, payload...)))
	vf := vnet.Frame{
		Header: vnet.Header{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, GSO: vnet.GSOTCPv4, SegmentSize: 1448},
		Data:   virtq.Buffers{frame}, Len: len(frame),
	}
	seq, want := uint32(1001), int64(0)
	one := func() {
		binary.BigEndian.PutUint32(frame[14+20+4:], seq)
		seq, want = seq+size, want+size
		if !g.s.link.Transmit(0, &vf) {
			t.Fatal("not taken")
		}
		for got.Load() < want {
			time.Sleep(10 * time.Microsecond)
		}
	}
	for range 50 {
		one() // fills the pools
	}
	if n := testing.AllocsPerRun(200, one); n >= 1 {
		t.Errorf("%v allocations for a segment of %d bytes", n, size)
	}
}
