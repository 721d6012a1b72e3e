package netstack

import (
	"encoding/binary"
	"errors"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// peekHello waits for the first message that the guest sends, at most 16 KiB and
// 5 seconds, and leaves it unread. What is not the begin of TLS is returned as
// soon as that is known; a guest that says nothing gives nothing.
func (f *tcpFlow) peekHello() ([]byte, error) {
	entry, ch := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	f.wq.EventRegister(&entry)
	defer f.wq.EventUnregister(&entry)
	timeout := time.NewTimer(helloTimeout)
	defer timeout.Stop()
	var b []byte
	for {
		c := collect{max: maxHello}
		_, err := f.ep.Read(&c, tcpip.ReadOptions{Peek: true})
		switch err.(type) {
		case nil:
			b = c.b
		case *tcpip.ErrWouldBlock, *tcpip.ErrClosedForReceive:
		default:
			return nil, errors.New(err.String())
		}
		if _, complete := parseHello(b); complete || len(b) >= maxHello {
			return b, nil
		}
		if _, ok := err.(*tcpip.ErrClosedForReceive); ok {
			return b, nil
		}
		select {
		case <-ch:
		case <-timeout.C:
			return b, nil
		case <-f.s.ctx.Done():
			return nil, ErrClosed
		}
	}
}

// collect is a writer that keeps the first max bytes.
type collect struct {
	b   []byte
	max int
}

func (c *collect) Write(p []byte) (int, error) {
	n := min(len(p), c.max-len(c.b))
	c.b = append(c.b, p[:n]...)
	if n < len(p) {
		return n, errEnough
	}
	return n, nil
}

// serverName is the name in a ClientHello, or "".
func serverName(b []byte) string {
	name, _ := parseHello(b)
	return name
}

// parseHello looks for the server name (RFC 6066, 3) in the TLS records that b
// begins with. It reports whether more bytes could not change the answer.
func parseHello(b []byte) (name string, complete bool) {
	const (
		recordHandshake = 22
		clientHello     = 1
	)
	// A ClientHello may be cut into several records.
	var msg []byte
	for {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return "", true
		}
		if len(b) < 5 {
			return "", false
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n == 0 || n > 1<<14 {
			return "", true
		}
		part := b[5:min(5+n, len(b))]
		msg = append(msg, part...)
		if len(msg) > 0 && msg[0] != clientHello {
			return "", true
		}
		if len(msg) >= 4 {
			want := 4 + (int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3]))
			if want > maxHello {
				return "", true
			}
			if len(msg) >= want {
				return helloName(msg[4:want]), true
			}
		}
		if len(part) < n {
			return "", false
		}
		b = b[5+n:]
	}
}

// helloName parses the body of a ClientHello (RFC 8446, 4.1.2).
func helloName(b []byte) string {
	ok := true
	skip := func(n int) []byte {
		if n > len(b) {
			ok = false
			n = len(b)
		}
		s := b[:n]
		b = b[n:]
		return s
	}
	vec := func(size int) []byte {
		n := 0
		for _, c := range skip(size) {
			n = n<<8 | int(c)
		}
		return skip(n)
	}
	skip(2 + 32) // version, random
	vec(1)       // session
	vec(2)       // cipher suites
	vec(1)       // compression
	exts := vec(2)
	if !ok {
		return ""
	}
	for b = exts; len(b) >= 4 && ok; {
		typ := binary.BigEndian.Uint16(skip(2))
		body := vec(2)
		if typ != 0 || !ok {
			continue
		}
		b = body
		for b = vec(2); len(b) >= 3 && ok; {
			kind := skip(1)[0]
			if host := vec(2); kind == 0 && ok {
				return string(host)
			}
		}
		return ""
	}
	return ""
}
