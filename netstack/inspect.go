package netstack

import (
	"encoding/binary"
	"errors"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// inspect waits for the first message of the guest and asks the policy again,
// with the server's name that is in it: the error is ErrDenied if that is denied.
// It tells what the guest has sent, which is left unread, and whether the guest
// may still send a name, because time was out.
func (f *tcpFlow) inspect(timeout <-chan time.Time, stop <-chan struct{}) (hello []byte, more bool, err error) {
	hello, more, err = f.peekHello(timeout, stop)
	if err != nil {
		return nil, false, err
	}
	f.policy.Inspected, f.policy.SNI = true, serverName(hello)
	d := f.s.decide(f.policy)
	f.rule = d.Rule
	if !d.Allow || d.NeedSNI {
		f.log(FlowDenied, d.Rule, ErrDenied)
		return nil, false, ErrDenied
	}
	return hello, more, nil
}

// peekHello waits until the guest has sent a message, 16 KiB of one, or all that
// it will send, and leaves that unread. What is not the begin of TLS is returned
// as soon as that is known. After the timeout, more is true: it may become TLS.
func (f *tcpFlow) peekHello(timeout <-chan time.Time, stop <-chan struct{}) (b []byte, more bool, err error) {
	entry, ch := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	f.wq.EventRegister(&entry)
	defer f.wq.EventUnregister(&entry)
	for last := false; ; {
		c := collect{max: maxHello}
		_, err := f.ep.Read(&c, tcpip.ReadOptions{Peek: true})
		switch err.(type) {
		case nil:
			b = c.b
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive:
			return b, false, nil
		default:
			return nil, false, errors.New(err.String())
		}
		if _, complete := parseHello(b); complete || len(b) >= maxHello || last {
			return b, false, nil
		}
		// While there is something to read, that the guest ended does not show
		// by reading. It may have sent more before it did.
		switch tcp.EndpointState(f.ep.State()) {
		case tcp.StateEstablished, tcp.StateFinWait1, tcp.StateFinWait2:
		case tcp.StateError:
			return nil, false, syscall.ECONNRESET
		default:
			last = true
			continue
		}
		select {
		case <-ch:
		case <-timeout:
			return b, true, nil
		case <-stop:
			return nil, false, ErrClosed
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
