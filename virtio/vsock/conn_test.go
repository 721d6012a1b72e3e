package vsock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// dialPair returns a connection's two ends on two devices.
func dialPair(t testing.TB, a, b *side, port uint32) (c1, c2 *Conn) {
	t.Helper()
	l, err := b.dev.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	c, err := a.dev.Dial(testContext(t), port)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Conn), (<-accepted).(*Conn)
}

func TestConn(t *testing.T) {
	a, b := newPair(t)
	port := uint32(7000)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		port++
		x, y := dialPair(t, a, b, port)
		return x, y, func() { x.Close(); y.Close() }, nil
	})
	a.d.CheckHealthy()
	b.d.CheckHealthy()
}

func TestBulkBothWays(t *testing.T) {
	a, b := newPair(t)
	c1, c2 := dialPair(t, a, b, 80)
	data := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	var wg sync.WaitGroup
	for _, c := range []*Conn{c1, c2} {
		wg.Go(func() {
			for sent := 0; sent < len(data); {
				n := min(1+rand.IntN(100_000), len(data)-sent)
				if _, err := c.Write(data[sent : sent+n]); err != nil {
					t.Error(err)
					return
				}
				sent += n
			}
			c.CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(data))
			}
		})
	}
	wg.Wait()
	c1.Close()
	c2.Close()
	a.waitConns(t, 0)
	b.waitConns(t, 0)
}

// waitConns waits until the device's table has n connections.
func (s *side) waitConns(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); s.dev.Stats().Conns != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections, want %d", s.dev.Stats().Conns, n)
		}
	}
}

func TestCloseDeliversWrites(t *testing.T) {
	a, b := newPair(t)
	c1, c2 := dialPair(t, a, b, 81)
	want := bytes.Repeat([]byte("0123456789"), 20_000)
	go func() {
		if _, err := c1.Write(want); err != nil {
			t.Error(err)
		}
		c1.Close()
	}()
	got, err := io.ReadAll(c2)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v; want %d", len(got), err, len(want))
	}
	if _, err := c2.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to a closed peer: %v", err)
	}
	c2.Close()
	a.waitConns(t, 0)
	b.waitConns(t, 0)
}

func TestHalfClose(t *testing.T) {
	a, b := newPair(t)
	c1, c2 := dialPair(t, a, b, 82)
	defer c1.Close()
	defer c2.Close()
	if err := c1.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c1.Write([]byte("x")); !errors.Is(err, ErrShutdown) {
		t.Errorf("write after CloseWrite: %v", err)
	}
	if n, err := c2.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("peer reads %d, %v; want EOF", n, err)
	}
	// The other direction still works.
	if _, err := c2.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c1, buf); err != nil || string(buf) != "hello" {
		t.Fatalf("read %q, %v", buf, err)
	}
	// And now its receiver says that it reads no more.
	if err := c1.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if _, err := c1.Read(buf); err != io.EOF {
		t.Errorf("read after CloseRead: %v", err)
	}
	for {
		if _, err := c2.Write([]byte("x")); err != nil {
			if !errors.Is(err, ErrShutdown) {
				t.Errorf("write to a peer that reads no more: %v", err)
			}
			break
		}
	}
	// Both ends have said all: the slot is free though nobody closed.
	a.waitConns(t, 0)
	b.waitConns(t, 0)
}

func TestErrorsAreOpErrors(t *testing.T) {
	a, b := newPair(t)
	c1, c2 := dialPair(t, a, b, 83)
	defer c2.Close()
	if got, want := c1.RemoteAddr().String(), "3:83"; got != want {
		t.Errorf("remote address %q, want %q", got, want)
	}
	if got := c1.LocalAddr().(Addr).CID; got != HostCID {
		t.Errorf("local CID %d", got)
	}
	c1.SetReadDeadline(time.Unix(1, 0))
	_, err := c1.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.As(err, &op) || op.Net != "vsock" || op.Op != "read" || !op.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %#v", err)
	}
	if err := c1.Close(); err != nil {
		t.Error(err)
	}
	if err := c1.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if err := c1.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("deadline after close: %v", err)
	}
}

// A stream that is always ready must not keep others from the receive buffers.
func TestFairness(t *testing.T) {
	a, b := newPair(t)
	bulk1, bulk2 := dialPair(t, a, b, 84)
	go io.Copy(io.Discard, bulk2)
	go func() {
		p := make([]byte, 8<<20)
		for {
			if _, err := bulk1.Write(p); err != nil {
				return
			}
		}
	}()
	c1, c2 := dialPair(t, a, b, 85)
	var echo sync.WaitGroup
	echo.Go(func() { io.Copy(c2, c2); c2.Close() })
	p := make([]byte, 100)
	for range 50 {
		c1.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c1.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c1, p); err != nil {
			t.Fatal(err)
		}
	}
	c1.Close()
	echo.Wait()
	bulk1.Close()
	bulk2.Close()
}
