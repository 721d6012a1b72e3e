package netstack

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
)

// denyList is a Decide that allows all but one name.
func denyList(t *testing.T) func(policy.Flow) policy.Decision {
	t.Helper()
	e, err := policy.New(policy.AllowAll().WithDenied([]string{"bad.example.com"}, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.Evaluate
}

// heard is what a server read, and how that ended.
type heard struct {
	bytes string
	err   error
}

// greeter speaks first, and tells all that it hears afterwards.
func greeter(w *world, t *testing.T) <-chan heard {
	t.Helper()
	ch := make(chan heard, 1)
	w.serve(t, web4, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = c.Write([]byte("220 hello\r\n"))
		b, err := io.ReadAll(c)
		ch <- heard{string(b), err}
		_, _ = c.Write([]byte("221 bye\r\n"))
	})
	return ch
}

func hear(t *testing.T, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); string(b) != want {
		t.Fatalf("%q, %v, want %q", b[:n], err, want)
	}
}

// TestServerFirst: under a deny list a server that speaks first is heard at
// once, and hears what is no TLS, or TLS with another name.
func TestServerFirst(t *testing.T) {
	hello := string(clientHello(t, "good.example.com"))
	for what, say := range map[string][]string{
		"a line":           {"EHLO guest\r\n"},
		"nothing":          nil,
		"TLS":              {hello},
		"TLS in pieces":    {hello[:3], hello[3:100], hello[100:] + "more"},
		"a piece of TLS":   {hello[:100]},
		"no name":          {string(clientHello(t, ""))},
		"much":             {"x", string(pattern(1 << 20))},
		"no TLS after all": {hello[:1], "x"},
	} {
		w := newWorld()
		got := greeter(w, t)
		cfg := w.config()
		cfg.Decide = denyList(t)
		g := newGuest(t, cfg)
		start := time.Now()
		c := g.mustDial(web4)
		hear(t, c, "220 hello\r\n")
		if d := time.Since(start); d > helloTimeout/2 {
			t.Errorf("%s: the greeting took %v", what, d)
		}
		for _, s := range say {
			_, _ = c.Write([]byte(s))
			time.Sleep(5 * time.Millisecond)
		}
		_ = c.CloseWrite()
		if h := <-got; h.bytes != strings.Join(say, "") || h.err != nil {
			t.Errorf("%s: the server heard %d bytes, %v", what, len(h.bytes), h.err)
		}
		hear(t, c, "221 bye\r\n")
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %d bytes, %v at the end", what, n, err)
		}
		if d := time.Since(start); d > helloTimeout/2 {
			t.Errorf("%s: it took %v", what, d)
		}
		g.waitIdle()
	}
}

// TestServerFirstDenied: no byte of a flow that a name denies gets to the server.
func TestServerFirstDenied(t *testing.T) {
	w := newWorld()
	got := greeter(w, t)
	cfg := w.config()
	cfg.Decide = denyList(t)
	var mu sync.Mutex
	var events []FlowEvent
	cfg.FlowLog = func(e FlowEvent) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}
	g := newGuest(t, cfg)
	c := g.mustDial(web4)
	hear(t, c, "220 hello\r\n")
	hello := clientHello(t, "bad.example.com")
	_, _ = c.Write(hello[:200])
	time.Sleep(20 * time.Millisecond)
	_, _ = c.Write(hello[200:])
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the guest saw %v", err)
	}
	if h := <-got; h.bytes != "" || h.err == nil {
		t.Errorf("the server heard %d bytes, %v", len(h.bytes), h.err)
	}
	g.waitIdle()
	mu.Lock()
	defer mu.Unlock()
	if len(events) != 3 || events[0].Kind != FlowOpened || events[1].Kind != FlowDenied || events[2].Kind != FlowClosed {
		t.Fatalf("events %+v", events)
	}
	if e := events[1]; e.Rule != 0 || e.Flow.SNI != "bad.example.com" || !errors.Is(e.Err, ErrDenied) {
		t.Errorf("denied: %+v", e)
	}
	if e := events[2]; e.Sent != 0 || e.Received != 11 || !errors.Is(e.Err, ErrDenied) {
		t.Errorf("closed: %+v", e)
	}
}

// TestServerFirstEnds ends flows whose guest has not said enough.
func TestServerFirstEnds(t *testing.T) {
	hello := clientHello(t, "good.example.com")
	start := func() (*guest, <-chan heard, io.ReadWriteCloser) {
		w := newWorld()
		got := greeter(w, t)
		cfg := w.config()
		cfg.Decide = denyList(t)
		g := newGuest(t, cfg)
		c := g.mustDial(web4)
		hear(t, c, "220 hello\r\n")
		_, _ = c.Write(hello[:100])
		time.Sleep(20 * time.Millisecond)
		return g, got, c
	}
	reset := func(what string, got <-chan heard) {
		select {
		case h := <-got:
			if h.bytes != "" || h.err == nil {
				t.Errorf("%s: the server heard %d bytes, %v", what, len(h.bytes), h.err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the server heard nothing", what)
		}
	}
	g, got, _ := start()
	g.abortAll()
	reset("reset", got)
	g.waitIdle()

	g, got, _ = start()
	begin := time.Now()
	if err := g.s.Close(); err != nil || time.Since(begin) > time.Second {
		t.Errorf("Close: %v after %v", err, time.Since(begin))
	}
	reset("Close", got)

	// The server resets, or ends first.
	w := newWorld()
	connected := make(chan struct{})
	w.serve(t, web4, func(c *net.TCPConn) {
		<-connected
		_ = c.SetLinger(0)
		_ = c.Close()
	})
	late := make(chan heard, 1)
	w.serve(t, web6, func(c *net.TCPConn) {
		defer c.Close()
		_ = c.CloseWrite()
		b, err := io.ReadAll(c)
		late <- heard{string(b), err}
	})
	cfg := w.config()
	cfg.Decide = denyList(t)
	g = newGuest(t, cfg)
	c := g.mustDial(web4)
	close(connected)
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the server reset: %v", err)
	}
	c = g.mustDial(web6)
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("the server ended: %q, %v", b, err)
	}
	_, _ = c.Write([]byte("late"))
	_ = c.Close()
	if h := <-late; h.bytes != "late" || h.err != nil {
		t.Errorf("after its end the server heard %+v", h)
	}
	if _, err := g.dial("203.0.113.1:80"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a server that refuses: %v", err)
	}
	g.waitIdle()
}

// TestLateHello: where a domain allows the flow, a guest that says nothing is
// connected after a while, but the name is still looked at when it comes.
func TestLateHello(t *testing.T) {
	t.Parallel()
	w := newWorld()
	got := greeter(w, t)
	cfg := w.config()
	cfg.Decide = func(f policy.Flow) policy.Decision {
		return policy.Decision{Allow: f.SNI == "" || f.SNI == "good.example.com", NeedSNI: !f.Inspected}
	}
	g := newGuest(t, cfg)
	start := time.Now()
	c := g.mustDial(web4)
	hear(t, c, "220 hello\r\n")
	if d := time.Since(start); d < helloTimeout*9/10 {
		t.Errorf("the server was connected to after %v", d)
	}
	_, _ = c.Write(clientHello(t, "bad.example.com"))
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the guest saw %v", err)
	}
	if h := <-got; h.bytes != "" || h.err == nil {
		t.Errorf("the server heard %d bytes, %v", len(h.bytes), h.err)
	}
	g.waitIdle()
}
