package vsock

import (
	"net"
	"os"
	"sync"
	"time"
)

// Listener accepts connections that the guest opens to one host port. It
// outlives resets and restores of the device.
type Listener struct {
	d    *Device
	addr Addr
	cond sync.Cond // on d.mu, as all below

	queue  []*Conn
	closed bool
	dl     deadline
}

// Listen accepts connections that the guest opens to HostCID and port. The
// error is ErrPortInUse, or net.ErrClosed after Device.Close.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := &Listener{d: d, addr: Addr{CID: HostCID, Port: port}}
	l.cond.L = &d.mu
	switch {
	case d.closed:
		return nil, l.opError("listen", net.ErrClosed)
	case d.listeners[port] != nil:
		return nil, l.opError("listen", ErrPortInUse)
	}
	d.listeners[port] = l
	return l, nil
}

func (l *Listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Addr: l.addr, Err: err}
}

// Addr returns the address that the guest connects to.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for a connection. The value is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	for {
		switch {
		case l.closed:
			return nil, l.opError("accept", net.ErrClosed)
		case l.dl.expired:
			return nil, l.opError("accept", os.ErrDeadlineExceeded)
		case len(l.queue) > 0:
			c := l.queue[0]
			l.queue[0] = nil
			if l.queue = l.queue[1:]; len(l.queue) == 0 {
				l.queue = nil // or the array would only ever grow
			}
			return c, nil
		}
		l.cond.Wait()
	}
}

// SetDeadline bounds the waiting of Accept.
func (l *Listener) SetDeadline(t time.Time) error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	if l.closed {
		return l.opError("set", net.ErrClosed)
	}
	l.dl.set(&l.cond, t)
	return nil
}

// Close stops listening and resets the connections that nobody accepted.
func (l *Listener) Close() error {
	d := l.d
	d.mu.Lock()
	if l.closed {
		d.mu.Unlock()
		return l.opError("close", net.ErrClosed)
	}
	l.closed = true
	l.dl.stop()
	queue := l.queue
	l.queue = nil
	if d.listeners[l.addr.Port] == l {
		delete(d.listeners, l.addr.Port)
	}
	l.cond.Broadcast()
	d.mu.Unlock()
	for _, c := range queue {
		d.drop(c, net.ErrClosed, true)
		c.Close()
	}
	return nil
}
