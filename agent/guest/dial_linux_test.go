package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"
)

// TestDialConforms runs the conformance tests of connections over Dial.
func TestDialConforms(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				address := "127.0.0.1:0"
				if network == "unix" {
					address = fmt.Sprintf("@hutch-test-%p", t)
				}
				l, err := net.Listen(network, address)
				if err != nil {
					return nil, nil, nil, err
				}
				defer l.Close()
				c1, err = a.Dial(t.Context(), network, l.Addr().String())
				if err != nil {
					return nil, nil, nil, err
				}
				if c2, err = l.Accept(); err != nil {
					return nil, nil, nil, err
				}
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

func TestDialErrors(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	for _, c := range []struct {
		network, address string
		want             error
	}{
		{"tcp", closed, unix.ECONNREFUSED},
		{"unix", "/nonexistent/socket", unix.ENOENT},
		{"tcp", "localhost:80", unix.EINVAL},
		{"unix", "relative", unix.EINVAL},
	} {
		_, err := a.Dial(t.Context(), c.network, c.address)
		var oe *net.OpError
		if !errors.As(err, &oe) || oe.Op != "dial" || oe.Net != c.network || !errors.Is(err, c.want) {
			t.Errorf("%s %s: %v, want %v", c.network, c.address, err, c.want)
		}
	}
	if _, err := a.Dial(t.Context(), "udp", "127.0.0.1:1"); err == nil {
		t.Error("udp can be dialed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Dial(ctx, "tcp", closed); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDialHalfClose: each side may end first, and the other goes on.
func TestDialHalfClose(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	defer l.Close()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	accept := func() *net.TCPConn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	c, err := a.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if c.RemoteAddr().String() != l.Addr().String() {
		t.Errorf("remote address %v, want %v", c.RemoteAddr(), l.Addr())
	}
	far := accept()
	if c.LocalAddr().String() != far.RemoteAddr().String() {
		t.Errorf("local address %v, want %v", c.LocalAddr(), far.RemoteAddr())
	}
	var work sync.WaitGroup
	work.Go(func() { // the host ends first
		c.Write(big)
		c.CloseWrite()
	})
	if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("far end read %d bytes, %v", len(got), err)
	}
	work.Wait()
	work.Go(func() { far.Write(big); far.Close() })
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	work.Wait()
	c.Close()

	c, err = a.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far = accept()
	far.CloseWrite() // the guest ends first
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v", err)
	}
	work.Go(func() { c.Write(big); c.Close() })
	if got, err := io.ReadAll(far); err != nil || !bytes.Equal(got, big) {
		t.Errorf("far end read %d bytes, %v", len(got), err)
	}
	work.Wait()
	far.Close()
}

// TestDialAbort: a reset reaches the host as one, and a host that closes ends
// the guest's connection even when no data moves.
func TestDialAbort(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pair := func() (net.Conn, *net.TCPConn) {
		c, err := a.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c, far.(*net.TCPConn)
	}
	c, far := pair()
	far.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	far.SetLinger(0)
	far.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
	c.Close()

	c, far = pair()
	c.Close()
	far.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the host closed: %v", err)
	}
	for { // and a write is answered by a reset, for nobody is there
		if _, err := far.Write([]byte("x")); err != nil {
			if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("writing to nobody: %v", err)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	far.Close()

	// The server's end takes its relays with it.
	s := NewServer(Defaults{})
	a = newAgent(t, s)
	c, far = pair()
	defer c.Close()
	defer far.Close()
	s.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after the server's end: %v", err)
	}
}

func TestDialHTTP(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	}))
	defer srv.Close()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return a.Dial(ctx, network, address)
	}}
	defer tr.CloseIdleConnections()
	client := http.Client{Transport: tr}
	body := strings.Repeat("hello ", 50000)
	var work sync.WaitGroup
	for range 20 {
		work.Go(func() {
			resp, err := client.Post(srv.URL, "text/plain", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != body {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	work.Wait()
}
