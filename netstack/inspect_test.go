package netstack

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
)

// clientHello is what crypto/tls says first.
func clientHello(t testing.TB, name string) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}).Handshake()
		a.Close()
	}()
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	return buf[:n]
}

func TestParseHello(t *testing.T) {
	hello := clientHello(t, "www.example.com")
	if name, ok := parseHello(hello); name != "www.example.com" || !ok {
		t.Errorf("%q, %v", name, ok)
	}
	for i := range hello {
		if name, ok := parseHello(hello[:i]); name != "" || ok {
			t.Fatalf("%d bytes: %q, %v", i, name, ok)
		}
	}
	// Cut into records of 50 bytes.
	var cut []byte
	for body := hello[5:]; len(body) > 0; {
		n := min(50, len(body))
		cut = append(append(cut, 22, 3, 1, 0, byte(n)), body[:n]...)
		body = body[n:]
	}
	if name, ok := parseHello(cut); name != "www.example.com" || !ok {
		t.Errorf("in records: %q, %v", name, ok)
	}
	if name, ok := parseHello(clientHello(t, "")); name != "" || !ok {
		t.Errorf("without a name: %q, %v", name, ok)
	}
	for _, other := range []string{"GET / HTTP/1.1\r\n", "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", "\x16\x02"} {
		if name, ok := parseHello([]byte(other)); name != "" || !ok {
			t.Errorf("%q: %q, %v", other, name, ok)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(clientHello(f, "www.example.com"))
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, ok := parseHello(b)
		if name != "" && (!ok || !strings.Contains(string(b), name[:1])) {
			t.Fatal("a name out of nothing")
		}
		if more, _ := parseHello(append(b[:len(b):len(b)], 0, 1, 2)); ok && more != name {
			t.Fatal("a complete answer changed")
		}
	})
}

// sniPolicy allows two names only, and wants to see them.
func sniPolicy(f policy.Flow) policy.Decision {
	if !f.Inspected {
		return policy.Decision{Allow: true, NeedSNI: true, Rule: 1}
	}
	return policy.Decision{Allow: f.SNI == "good.example.com", Rule: 2}
}

// TestNeedSNI: the host is connected to only when the name is known and allowed.
func TestNeedSNI(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, echoAll)
	cfg := w.config()
	cfg.Decide = sniPolicy
	dialed := make(chan struct{}, 10)
	dial := cfg.DialTCP
	cfg.DialTCP = func(ctx context.Context, to addrPort) (net.Conn, error) {
		dialed <- struct{}{}
		return dial(ctx, to)
	}
	g := newGuest(t, cfg)
	c := g.mustDial(web4)
	hello := clientHello(t, "good.example.com")
	_, _ = c.Write(hello[:20])
	time.Sleep(20 * time.Millisecond)
	select {
	case <-dialed:
		t.Error("dialed before the name was known")
	default:
	}
	_, _ = c.Write(hello[20:])
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != string(hello) || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	<-dialed
	for _, first := range []string{string(clientHello(t, "bad.example.com")), "GET / HTTP/1.0\r\n\r\n"} {
		c = g.mustDial(web4)
		_, _ = c.Write([]byte(first))
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("%.10q: %v", first, err)
		}
	}
	c = g.mustDial(web4) // says nothing, and goes
	c.Close()
	g.waitIdle()
	if len(dialed) != 0 {
		t.Error("a denied name was dialed")
	}
}

// upper is a StreamHandler that changes what passes.
type upper struct{}

func (upper) ServeStream(ctx context.Context, guest net.Conn, hello []byte, dial func(context.Context) (net.Conn, error)) {
	defer guest.Close()
	host, err := dial(ctx)
	if err != nil {
		return
	}
	defer host.Close()
	b, _ := io.ReadAll(guest)
	_, _ = host.Write([]byte(strings.ToUpper(string(b))))
	_ = host.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(guest, host)
}

func TestIntercept(t *testing.T) {
	w := newWorld()
	w.serve(t, web4, echoAll)
	cfg := w.config()
	cfg.Intercept = func(f policy.Flow) StreamHandler {
		if f.Port != 80 {
			return nil
		}
		return upper{}
	}
	g := newGuest(t, cfg)
	c := g.mustDial(web4)
	_, _ = c.Write([]byte("hello"))
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "HELLO" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
