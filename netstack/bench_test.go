package netstack

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/hutchvm/hutch/netstack/policy"
)

// endpoint serves flows inside the process: the two stacks and the rings alone.
type endpoint struct{ send bool }

func (e endpoint) ServeStream(ctx context.Context, guest net.Conn, _ []byte, _ func(context.Context) (net.Conn, error)) {
	defer guest.Close()
	if !e.send {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, guest, make([]byte, 256<<10))
		_ = n
		return
	}
	b := make([]byte, 256<<10)
	for {
		if _, err := guest.Write(b); err != nil {
			return
		}
	}
}

// BenchmarkStacks is one TCP stream between two stacks over the rings of the card,
// MTU 1500, in one direction each.
func BenchmarkStacks(b *testing.B) {
	for _, send := range []bool{false, true} {
		b.Run(map[bool]string{false: "transmit", true: "receive"}[send], func(b *testing.B) {
			g := newGuest(b, Config{Intercept: func(policy.Flow) StreamHandler { return endpoint{send} }})
			stream(b, g, !send)
		})
	}
}

// BenchmarkSockets is one TCP stream between the guest's stack and a socket of the
// host.
func BenchmarkSockets(b *testing.B) {
	for _, send := range []bool{false, true} {
		b.Run(map[bool]string{false: "transmit", true: "receive"}[send], func(b *testing.B) {
			w := newWorld()
			w.serve(b, web4, func(c *net.TCPConn) {
				defer c.Close()
				buf := make([]byte, 256<<10)
				for {
					if send {
						if _, err := c.Write(buf); err != nil {
							return
						}
					} else if _, err := c.Read(buf); err != nil {
						return
					}
				}
			})
			g := newGuest(b, w.config())
			stream(b, g, !send)
		})
	}
}

func stream(b *testing.B, g *guest, send bool) {
	c := g.mustDial(web4)
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if send {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		} else if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	g.abortAll()
}

// BenchmarkConnections opens, uses and closes connections one after the other.
func BenchmarkConnections(b *testing.B) {
	w := newWorld()
	w.serve(b, web4, func(c *net.TCPConn) {
		defer c.Close()
		buf := make([]byte, 1)
		_, _ = c.Read(buf)
		_, _ = c.Write(buf)
	})
	g := newGuest(b, w.config())
	b.ReportAllocs()
	for b.Loop() {
		c, err := g.dial(web4)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		_, _ = io.ReadAll(c)
		c.Close()
	}
}
