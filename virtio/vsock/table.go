package vsock

import (
	"context"
	"io"
	"net"
	"time"
)

// Dial connects to a port in the guest. It waits for the guest's driver, and
// then for the guest's answer, until ctx ends. The value is a *Conn. Errors:
// ErrRefused, ErrReset, ErrTooMany, net.ErrClosed, or ctx's.
func (d *Device) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := d.dial(ctx, port)
	if err != nil {
		addr := Addr{CID: uint32(d.cfg.GuestCID), Port: port}
		return nil, &net.OpError{Op: "dial", Net: "vsock", Addr: addr, Err: err}
	}
	return c, nil
}

func (d *Device) dial(ctx context.Context, port uint32) (*Conn, error) {
	c, err := d.newOutgoing(ctx, port)
	if err != nil {
		return nil, err
	}
	d.request(c, ctlRequest)
	select {
	case <-c.opened:
		if c.openErr == nil {
			return c, nil
		}
		err = c.openErr
	case <-ctx.Done():
		d.drop(c, ErrReset, true)
		err = ctx.Err()
	}
	c.Close()
	return nil, err
}

// newOutgoing waits for the driver and puts a connection into the table.
func (d *Device) newOutgoing(ctx context.Context, port uint32) (*Conn, error) {
	for {
		d.mu.Lock()
		ready := d.ready
		if d.closed {
			d.mu.Unlock()
			return nil, net.ErrClosed
		}
		select {
		case <-ready:
			defer d.mu.Unlock()
			switch {
			case d.open >= d.cfg.MaxConns:
				return nil, ErrTooMany
			}
			return d.add(makeKey(d.freePort(port), port)), nil
		default:
		}
		d.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// freePort picks the host's port for a connection to port. There are far more
// ports than connections, so this ends. d.mu is held.
func (d *Device) freePort(port uint32) uint32 {
	for {
		p := d.nextPort
		if d.nextPort++; d.nextPort == 1<<32-1 { // VMADDR_PORT_ANY
			d.nextPort = firstDialPort
		}
		if d.conns[makeKey(p, port)] == nil && d.listeners[p] == nil {
			return p
		}
	}
}

// add makes a connection and puts it into the table. d.mu is held.
func (d *Device) add(key connKey) *Conn {
	credit := d.cfg.RecvBuffer
	if d.promised+credit > d.cfg.MaxBuffered {
		credit = min(credit, minRecvBuffer)
	}
	c := newConn(d, key.hostPort(), key.guestPort(), uint32(credit))
	d.conns[key] = c
	d.open++
	d.promised += credit
	return c
}

// forget gives back the budget of a connection that nobody holds any more.
func (d *Device) forget(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	d.promised -= int(c.bufAlloc)
}

// drop takes c out of the table and ends both halves with err, which a
// waiting Dial returns too. Data that arrived can still be read. It reports false
// when c was not in the table any more.
func (d *Device) drop(c *Conn, err error, sendReset bool) bool {
	d.mu.Lock()
	if d.conns[c.key] != c {
		d.mu.Unlock()
		return false
	}
	delete(d.conns, c.key)
	d.mu.Unlock()

	o := &d.out
	o.mu.Lock()
	s := &c.send
	s.gone, s.ctl = true, 0
	if s.err == nil {
		s.err = err
	}
	s.dl.stop()
	if s.probe != nil {
		s.probe.Stop()
	}
	if s.linger != nil {
		s.linger.Stop()
	}
	s.cond.Broadcast()
	if sendReset {
		o.pushReset(c.key, typeStream)
		o.pump()
	}
	o.mu.Unlock()

	c.endWith(err)
	c.open(err)
	c.release()
	return true
}

// closeConn starts the orderly end of a connection that its user closed:
// SHUTDOWN is queued, and the guest answers it with a reset.
func (d *Device) closeConn(c *Conn) {
	o := &d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.send.gone {
		return
	}
	o.shutdown(c, shutBoth)
	c.send.linger = time.AfterFunc(d.cfg.CloseTimeout, func() {
		d.drop(c, ErrReset, true)
	})
}

// endOfData ends reading after what is buffered.
func (c *Conn) endOfData() { c.endWith(io.EOF) }

func (c *Conn) endWith(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr == nil {
		c.readErr = err
	}
	if err != io.EOF {
		c.readDL.stop()
	}
	c.rcond.Broadcast()
}
