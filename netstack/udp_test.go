package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
)

type (
	policyFlow     = policy.Flow
	policyDecision = policy.Decision
)

const (
	udp4 = "198.51.100.7:9999"
	udp6 = "[2001:db8::7]:9999"
)

// echoUDP runs a server that sends every datagram back.
func (w *world) echoUDP(t testing.TB, at string) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.udp[netip.MustParseAddrPort(at)] = c.LocalAddr().String()
	w.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
}

func mustRead(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 65535)
	n, err := c.Read(b)
	if err != nil || !bytes.Equal(b[:n], want) {
		t.Errorf("read %d bytes, %v; want %d", n, err, len(want))
	}
}

// TestUDP echoes datagrams of all sizes, which come and go in fragments.
func TestUDP(t *testing.T) {
	for _, at := range []string{udp4, udp6} {
		w := newWorld()
		w.echoUDP(t, at)
		g := newGuest(t, w.config())
		c := g.udp(0, at)
		for _, n := range []int{1, 100, 1472, 1473, 9000, 60000, 0} {
			data := pattern(n)
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			mustRead(t, c, data)
		}
		if st := g.s.Stats(); st.UDPFlows != 1 {
			t.Errorf("%d flows", st.UDPFlows)
		}
		g.d.CheckHealthy()
	}
}

// TestUDPUnreachable: the guest learns at once that nobody listens, or that it may
// not.
func TestUDPUnreachable(t *testing.T) {
	w := newWorld()
	w.echoUDP(t, udp4)
	dead, _ := net.ListenPacket("udp4", "127.0.0.1:0")
	w.udp[netip.MustParseAddrPort(udp6)] = dead.LocalAddr().String()
	dead.Close()
	cfg := w.config()
	cfg.Decide = func(f policy.Flow) policy.Decision { return policy.Decision{Allow: f.Port != 7} }
	g := newGuest(t, cfg)
	frames := g.frames()
	for i, at := range []string{udp6, "198.51.100.7:7", "[2001:db8::1]:7"} {
		port := uint16(4000 + i)
		_, _ = g.udp(port, at).Write([]byte("x"))
		expect(t, frames, "unreachable from "+at, func(f []byte) bool {
			p := f[14:]
			switch {
			case p[0]>>4 == 4 && p[9] == ipProtoICMP && p[20] == 3 && p[21] == 3:
				return binary.BigEndian.Uint16(p[48:]) == port
			case p[0]>>4 == 6 && p[6] == ipProtoICMP6 && p[40] == 1 && p[41] == 4:
				return binary.BigEndian.Uint16(p[88:]) == port
			}
			return false
		})
	}
}

// TestUDPLimit opens more flows than there may be.
func TestUDPLimit(t *testing.T) {
	w := newWorld()
	w.echoUDP(t, udp4)
	g := newGuest(t, w.config())
	for i := range MaxUDPFlows + 50 {
		c := g.udp(uint16(20000+i), udp4)
		_, _ = c.Write([]byte("x"))
	}
	for g.s.Stats().Limited < 50 {
		time.Sleep(time.Millisecond)
	}
	if st := g.s.Stats(); st.UDPFlows != MaxUDPFlows {
		t.Errorf("%d flows", st.UDPFlows)
	}
	// Idle ones give way.
	time.Sleep(udpEvictIdle + 50*time.Millisecond)
	c := g.udp(30000, udp4)
	_, _ = c.Write([]byte("new"))
	mustRead(t, c, []byte("new"))
	if st := g.s.Stats(); st.UDPFlows != MaxUDPFlows {
		t.Errorf("%d flows", st.UDPFlows)
	}
}

// dnsEcho answers queries by their own bytes.
type dnsEcho struct{ to atomic.Value }

func (d *dnsEcho) ServeUDP(_ context.Context, q []byte, to netip.AddrPort) []byte {
	d.to.Store(to)
	return append([]byte("udp "), q...)
}

func (d *dnsEcho) ServeTCP(_ context.Context, c net.Conn, to netip.AddrPort) {
	defer c.Close()
	d.to.Store(to)
	b := make([]byte, 100)
	n, _ := c.Read(b)
	_, _ = c.Write(append([]byte("tcp "), b[:n]...))
	_, _ = io.Copy(io.Discard, c) // until Close
}

// TestDNS: port 53 of any address is the handler's, whatever the policy.
func TestDNS(t *testing.T) {
	d := &dnsEcho{}
	g := newGuest(t, Config{DNS: d, Decide: func(f policy.Flow) policy.Decision {
		t.Errorf("asked about %v", f)
		return policy.Decision{}
	}})
	for _, at := range []string{"10.203.0.1:53", "192.0.2.1:53", "[fd68:7574:6368::1]:53", "[2001:db8::53]:53"} {
		c := g.udp(0, at)
		_, _ = c.Write([]byte("query"))
		mustRead(t, c, []byte("udp query"))
		s := g.mustDial(at)
		_, _ = s.Write([]byte("query"))
		mustRead(t, s, []byte("tcp query"))
		if to := d.to.Load(); to != netip.MustParseAddrPort(at) {
			t.Errorf("handler saw %v, want %s", to, at)
		}
	}
	// Close does not wait for the handler's connections.
	if err := g.s.Close(); err != nil {
		t.Error(err)
	}
	plain := newGuest(t, Config{})
	if _, err := plain.dial("192.0.2.1:53"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("DNS without a handler: %v", err)
	}
}
