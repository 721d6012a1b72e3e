package netstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

const (
	web4 = "198.51.100.7:80"
	web6 = "[2001:db8::7]:80"
)

func echoAll(c *net.TCPConn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

// TestTCP sends much in both directions at once and half closes, over both
// families.
func TestTCP(t *testing.T) {
	for _, at := range []string{web4, web6} {
		w := newWorld()
		w.serve(t, at, echoAll)
		g := newGuest(t, w.config())
		c := g.mustDial(at)
		data := pattern(3 << 20)
		go func() {
			_, _ = c.Write(data)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d came back, %v", at, len(got), len(data), err)
		}
		g.d.CheckHealthy()
	}
}

func TestRefused(t *testing.T) {
	w := newWorld()
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	w.serve(t, web4, echoAll)
	for k := range w.tcp {
		w.tcp[k] = addr
	}
	g := newGuest(t, w.config())
	start := time.Now()
	for _, at := range []string{web4, "203.0.113.1:80"} {
		if _, err := g.dial(at); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: error %v", at, err)
		}
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("refusal took %v", d)
	}
	g.waitIdle()
	if st := g.s.Stats(); st.Failed != 2 {
		t.Errorf("stats %+v", st)
	}
}

// TestHalfClose lets each side finish first.
func TestHalfClose(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, func(c *net.TCPConn) { // answers when the request is complete
		defer c.Close()
		b, _ := io.ReadAll(c)
		_, _ = c.Write(append([]byte("got "), b...))
	})
	w.serve(t, web6, func(c *net.TCPConn) { // says all it has to say first
		defer c.Close()
		_, _ = c.Write([]byte("hello"))
		_ = c.CloseWrite()
		b, _ := io.ReadAll(c)
		if string(b) != "late" {
			t.Errorf("server read %q", b)
		}
	})
	g := newGuest(t, w.config())
	c := g.mustDial(web4)
	_, _ = c.Write([]byte("request"))
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "got request" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	c = g.mustDial(web6)
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_, _ = c.Write([]byte("late"))
	_ = c.Close()
	g.waitIdle()
}

// waitIdle waits until no flow is left.
func (g *guest) waitIdle() {
	g.t.Helper()
	for end := time.Now().Add(20 * time.Second); g.s.Stats().TCPFlows > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%d flows are left", g.s.Stats().TCPFlows)
		}
	}
}

// TestReset passes a RST on, in both directions, in the middle of a stream and
// after a half close.
func TestReset(t *testing.T) {
	for _, half := range []bool{false, true} {
		w := newWorld()
		seen := make(chan error, 1)
		w.serve(t, web4, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, 5))
			_, _ = c.Write(make([]byte, 1000))
			_ = c.SetLinger(0)
			_ = c.Close()
		})
		w.serve(t, web6, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("x"))
			_, err := io.Copy(io.Discard, c)
			if half && err == nil {
				for err == nil { // writing shows it
					time.Sleep(10 * time.Millisecond)
					_, err = c.Write([]byte("x"))
				}
			}
			seen <- err
			c.Close()
		})
		g := newGuest(t, w.config())
		c := g.mustDial(web4)
		_, _ = c.Write([]byte("hello"))
		if half {
			_ = c.CloseWrite()
		}
		if _, err := io.Copy(io.Discard, c); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("half %v: guest saw %v", half, err)
		}
		c = g.mustDial(web6)
		_, _ = io.ReadFull(c, make([]byte, 1))
		if half {
			_ = c.CloseWrite()
			time.Sleep(20 * time.Millisecond)
		}
		g.abortAll()
		select {
		case err := <-seen:
			if err == nil {
				t.Errorf("half %v: server saw an end in order", half)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("half %v: server saw nothing", half)
		}
		g.waitIdle()
	}
}

// abortAll resets all connections of the guest.
func (g *guest) abortAll() {
	for _, e := range g.ip.RegisteredEndpoints() {
		e.Abort()
	}
}

// TestBackpressure has a server that reads nothing, and then a guest that does:
// neither makes the host keep more than the buffers.
func TestBackpressure(t *testing.T) {
	w := newWorld()
	release := make(chan struct{})
	w.serve(t, web4, func(c *net.TCPConn) {
		defer c.Close()
		_ = c.SetReadBuffer(64 << 10)
		<-release
		n, _ := io.Copy(io.Discard, c)
		_, _ = c.Write([]byte{byte(n >> 20)})
	})
	g := newGuest(t, w.config())
	c := g.mustDial(web4)
	_ = c.SetWriteDeadline(time.Now().Add(700 * time.Millisecond))
	n, err := c.Write(make([]byte, 256<<20))
	if err == nil {
		t.Fatal("256 MiB went to a server that reads nothing")
	}
	t.Logf("%d KiB were buffered", n>>10)
	_ = c.SetWriteDeadline(time.Time{})
	close(release)
	_, _ = c.Write(make([]byte, 32<<20-n%(1<<20)))
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || int(b[0]) != byteOf(n) {
		t.Errorf("%v, %v", b, err)
	}
}

func byteOf(n int) int { return int(byte((n + 32<<20 - n%(1<<20)) >> 20)) }

// TestParallel opens a thousand connections at once, four times the limit: all
// are served in the end.
func TestParallel(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, echoAll)
	g := newGuest(t, w.config())
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 1000 {
		wg.Go(func() {
			c, err := g.dial(web4)
			if err != nil {
				failed.Add(1)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			b := make([]byte, 3)
			_, _ = c.Write([]byte("abc"))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "abc" {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of 1000 connections failed; %+v", n, g.s.Stats())
	}
	g.waitIdle()
}

func TestSequential(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, echoAll)
	g := newGuest(t, w.config())
	start := time.Now()
	const n = 2000
	for range n {
		c, err := g.dial(web4)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("abc"))
		_ = c.CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "abc" || err != nil {
			t.Fatal(string(b), err)
		}
		c.Close()
	}
	t.Logf("%v a connection", time.Since(start)/n)
	g.waitIdle()
}

// TestSilent has a host that answers no SYN, and a Close while the guest waits.
func TestSilent(t *testing.T) {
	cfg := Config{DialTCP: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	g := newGuest(t, cfg)
	c := make(chan error, 1)
	go func() {
		_, err := g.dial(web4)
		c <- err
	}()
	for g.s.Stats().TCPFlows == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-c:
		t.Errorf("the guest was answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	start := time.Now()
	if err := g.s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("Close took %v with a dial in flight", d)
	}
	g.abortAll()
	<-c
}

// TestCloseEndsAll closes with connections in every state: established and busy,
// idle, and a handshake that the guest does not finish.
func TestCloseEndsAll(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, func(c *net.TCPConn) {
		defer c.Close()
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	w.serve(t, web6, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(io.Discard, c)
	})
	g := newGuest(t, w.config())
	busy := g.mustDial(web4)
	go io.Copy(io.Discard, busy)
	idle := g.mustDial(web6)
	g.mute.Store(4242)
	g.sendPacket(synPacket(g, 4242, 80, nil))
	for g.s.Stats().TCPFlows < 3 {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if err := g.s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("Close took %v", d)
	}
	_ = idle
	if err := g.s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := g.s.Listen(Binding{Guest: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
	if _, err := g.s.DialContext(context.Background(), "tcp", ":1"); !errors.Is(err, ErrClosed) {
		t.Errorf("DialContext after Close: %v", err)
	}
}

// TestPortScan lets a guest try ten thousand ports, all denied but a few: each
// is refused at once and leaves nothing behind.
func TestPortScan(t *testing.T) {
	w := newWorld()
	cfg := w.config()
	cfg.Decide = func(f policy.Flow) policy.Decision {
		return policy.Decision{Allow: f.Port < 10, Rule: 3}
	}
	var denied atomic.Int64
	cfg.FlowLog = func(e FlowEvent) {
		if e.Kind == FlowDenied && e.Rule == 3 {
			denied.Add(1)
		}
	}
	g := newGuest(t, cfg)
	rst := g.frames()
	const n = 10000
	before := runtime.NumGoroutine()
	got := 0
	count := func(wait time.Duration) bool {
		select {
		case f := <-rst:
			if len(f) >= 54 && f[14+9] == 6 && f[14+20+13]&4 != 0 {
				got++
			}
			return true
		case <-time.After(wait):
			return false
		}
	}
	for i := range n {
		g.sendPacket(synPacket(g, 30000+uint16(i%1000), uint16(i), nil))
		for i%100 == 99 && got < i-200 && count(5*time.Second) {
		}
	}
	for got < n && count(time.Second) {
	}
	if got < n-100 { // the recorder may have lost some
		t.Errorf("%d of %d were refused", got, n)
	}
	if d := denied.Load(); d != n-10-1 { // port 53 is no matter of the policy
		t.Errorf("%d were denied", d)
	}
	g.waitIdle()
	if after := runtime.NumGoroutine(); after > before+20 {
		t.Errorf("%d goroutines, %d before", after, before)
	}
	g.d.CheckHealthy()
}

func TestDecide(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, echoAll)
	cfg := w.config()
	var events []FlowEvent
	var mu sync.Mutex
	cfg.FlowLog = func(e FlowEvent) {
		mu.Lock()
		events = append(events, e)
		mu.Unlock()
	}
	cfg.Decide = func(f policy.Flow) policy.Decision {
		if f.Direction != policy.Egress || f.Proto != policy.TCP || f.Port != 80 {
			t.Errorf("flow %+v", f)
		}
		return policy.Decision{Allow: f.Addr == netip.MustParseAddr("198.51.100.7"), Rule: 7}
	}
	g := newGuest(t, cfg)
	c := g.mustDial(web4)
	_, _ = c.Write([]byte("hi"))
	_ = c.CloseWrite()
	_, _ = io.ReadAll(c)
	if _, err := g.dial(web6); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a denied address: %v", err)
	}
	g.waitIdle()
	mu.Lock()
	defer mu.Unlock()
	var kinds []string
	for _, e := range events {
		if e.Rule != 7 || e.Time.IsZero() || !e.Guest.IsValid() {
			t.Errorf("event %+v", e)
		}
		if e.Kind == FlowClosed && (e.Sent != 2 || e.Received != 2) {
			t.Errorf("%d bytes sent, %d received", e.Sent, e.Received)
		}
		kinds = append(kinds, e.Kind.String())
	}
	slices.Sort(kinds)
	if got := strings.Join(kinds, " "); got != "closed denied opened" {
		t.Errorf("events: %s", got)
	}
}

// TestHost connects to the gateway's address, which stands for the host.
func TestHost(t *testing.T) {
	for _, gw := range []string{"10.203.0.1", "fd68:7574:6368::1"} {
		lo := "127.0.0.1"
		if strings.Contains(gw, ":") {
			lo = "::1"
		}
		l, err := net.Listen("tcp", net.JoinHostPort(lo, "0"))
		if err != nil {
			t.Skipf("no loopback: %v", err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("host"))
				c.Close()
			}
		}()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		g := newGuest(t, Config{})
		c := g.mustDial(net.JoinHostPort(gw, port))
		if b, err := io.ReadAll(c); string(b) != "host" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestNoOffloads is a guest whose driver has neither checksums nor segmentation.
func TestNoOffloads(t *testing.T) {
	for _, refuse := range []uint64{1<<0 | 1<<1 | 1<<7 | 1<<8 | 1<<11 | 1<<12 | 1<<13, 1<<7 | 1<<8} {
		for _, at := range []string{web4, web6} {
			w := newWorld()
			w.serve(t, at, echoAll)
			g := newGuest(t, w.config(), virtiotest.Options{Refuse: refuse})
			c := g.mustDial(at)
			data := pattern(300 << 10)
			go func() {
				_, _ = c.Write(data)
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, without %#x: %d bytes, %v", at, refuse, len(got), err)
			}
		}
	}
}

// TestFairness runs eight streams, four each way: none is starved.
func TestFairness(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(io.Discard, c)
	})
	w.serve(t, web6, func(c *net.TCPConn) {
		defer c.Close()
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	g := newGuest(t, w.config())
	var moved [8]atomic.Int64
	var wg sync.WaitGroup
	for i := range moved {
		at := web4
		if i%2 == 1 {
			at = web6
		}
		c := g.mustDial(at)
		wg.Go(func() {
			for b := make([]byte, 64<<10); ; {
				n, err := 0, error(nil)
				if at == web4 {
					n, err = c.Write(b)
				} else {
					n, err = c.Read(b)
				}
				moved[i].Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	time.Sleep(time.Second)
	g.abortAll()
	wg.Wait()
	for way := range 2 {
		least, most := int64(1<<62), int64(0)
		for i := way; i < len(moved); i += 2 {
			least, most = min(least, moved[i].Load()), max(most, moved[i].Load())
		}
		t.Logf("%d to %d MiB", least>>20, most>>20)
		if least < most/20 {
			t.Errorf("a stream moved %d bytes, another %d", least, most)
		}
	}
}
