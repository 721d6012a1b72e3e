package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/hutchvm/hutch/netstack/policy"
)

// serveGuest runs a TCP server in the guest.
func (g *guest) serveGuest(port uint16, handle func(net.Conn)) {
	g.t.Helper()
	l := g.listen(port)
	g.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.done.Go(func() { handle(c) })
		}
	})
	g.t.Cleanup(func() { l.Shutdown() })
}

func echoGuest(c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

func TestPublish(t *testing.T) {
	g := newGuest(t, Config{})
	g.serveGuest(80, echoGuest)
	var at []netip.AddrPort
	for _, host := range []string{"", "127.0.0.1:0", "[::1]:0", "0.0.0.0:0"} {
		b := Binding{Guest: 80}
		if host != "" {
			b.Host = netip.MustParseAddrPort(host)
		}
		a, err := g.s.Listen(b)
		if err != nil {
			t.Fatal(err)
		}
		if a.Port() == 0 || host == "" && a.Addr().String() != "127.0.0.1" {
			t.Errorf("%q became %v", host, a)
		}
		at = append(at, a)
	}
	if _, err := g.s.Listen(Binding{Host: at[0], Guest: 81}); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), at[0].String()) {
		t.Errorf("a port in use: %v", err)
	}
	for _, a := range at[:3] {
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello"))
		_ = c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
			t.Errorf("%v: %q, %v", a, b, err)
		}
		c.Close()
	}
	// A port where nobody listens in the guest.
	a, err := g.s.Listen(Binding{Guest: 99})
	if err != nil {
		t.Fatal(err)
	}
	if err := dialAndRead(a); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody listens: %v", err)
	}
}

// dialAndRead connects; a RST may come before or after that is done.
func dialAndRead(a netip.AddrPort) error {
	c, err := net.Dial("tcp", a.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestPublishMany makes thousands of short connections, one after the other and at
// the same time. The guest closes first, or the client.
func TestPublishMany(t *testing.T) {
	g := newGuest(t, Config{})
	g.serveGuest(80, func(c net.Conn) {
		b := make([]byte, 4)
		_, _ = io.ReadFull(c, b)
		_, _ = c.Write(b)
		if b[3]%2 == 0 {
			_, _ = c.Read(b)
		}
		c.Close()
	})
	a, err := g.s.Listen(Binding{Guest: 80})
	if err != nil {
		t.Fatal(err)
	}
	one := func(i int) error {
		c, err := net.Dial("tcp", a.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = fmt.Fprintf(c, "abc%c", byte(i))
		b := make([]byte, 4)
		_, err = io.ReadFull(c, b)
		return err
	}
	start := time.Now()
	for i := range 2000 {
		if err := one(i); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	t.Logf("in sequence: %v each", time.Since(start)/2000)
	var wg sync.WaitGroup
	var failed atomic.Int64
	start = time.Now()
	for w := range 100 {
		wg.Go(func() {
			for i := range 30 {
				if err := one(w + i); err != nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("100 at a time: %v each", time.Since(start)/3000)
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of 3000 failed", n)
	}
}

func TestPublishUDP(t *testing.T) {
	g := newGuest(t, Config{})
	srv, err := gonet.DialUDP(g.ip, &tcpip.FullAddress{Port: 5353}, nil, header.IPv4ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	g.done.Go(func() {
		b := make([]byte, 65535)
		for {
			n, from, err := srv.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = srv.WriteTo(append([]byte("re: "), b[:n]...), from)
		}
	})
	t.Cleanup(func() { srv.Close() })
	a, err := g.s.Listen(Binding{Proto: policy.UDP, Guest: 5353})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c, err := net.Dial("udp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, n := range []int{1, 5000} {
			_, _ = c.Write(pattern(n))
			mustRead(t, c, append([]byte("re: "), pattern(n)...))
		}
		if n := g.s.Stats().UDPFlows; n != i+1 {
			t.Errorf("%d flows", n)
		}
	}
	if _, err := g.s.Listen(Binding{Proto: policy.UDP, Host: a, Guest: 1}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port in use: %v", err)
	}
}

func TestPublishDenied(t *testing.T) {
	var events atomic.Int64
	g := newGuest(t, Config{
		Decide: func(f policy.Flow) policy.Decision {
			if f.Direction != policy.Ingress || f.Port != 80 || !f.Addr.IsLoopback() {
				t.Errorf("asked about %+v", f)
			}
			return policy.Decision{Rule: 5}
		},
		FlowLog: func(e FlowEvent) {
			if e.Kind == FlowDenied && e.Rule == 5 {
				events.Add(1)
			}
		},
	})
	g.serveGuest(80, echoGuest)
	a, err := g.s.Listen(Binding{Guest: 80})
	if err != nil {
		t.Fatal(err)
	}
	if err := dialAndRead(a); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a denied client read: %v", err)
	}
	if events.Load() != 1 {
		t.Errorf("%d events", events.Load())
	}
}

func TestDialContext(t *testing.T) {
	g := newGuest(t, Config{})
	l := g.listen(8000)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "from the guest") })}
	g.done.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Close() })
	client := &http.Client{Transport: &http.Transport{DialContext: g.s.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get("http://10.203.0.2:8000/")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != "from the guest" {
		t.Errorf("%q", b)
	}
	if _, err := g.s.DialContext(context.Background(), "tcp", ":9"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	for _, bad := range []string{"10.203.0.1:80", "192.0.2.1:80", "x:80", "80"} {
		if _, err := g.s.DialContext(context.Background(), "tcp", bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	g.mute.Store(0)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	g.s.Device().SetLink(false)
	start := time.Now()
	if _, err := g.s.DialContext(ctx, "tcp", ":8000"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("a dead guest: %v after %v", err, time.Since(start))
	}
}
