package netstack

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
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
	if st := g.s.Stats(); st.Failed != 2 || st.TCPFlows != 0 {
		t.Errorf("stats %+v", st)
	}
}
