package vsock

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a stream between the host and the guest. It implements net.Conn;
// all methods may be called at once from any goroutine. Write returns when the
// guest's driver has all of the bytes; nothing is buffered on the way out.
type Conn struct {
	d             *Device
	key           connKey
	local, remote Addr

	opened   chan struct{} // closed once Dial has its answer
	openOnce sync.Once
	openErr  error        // valid after opened
	owners   atomic.Int32 // the table and the user; at 0 the budget is given back
	closed   sync.Once    // Close
	peerShut uint32       // the guest's SHUTDOWN flags; transmit queue's goroutine

	readMu  sync.Mutex // one Read at a time
	writeMu sync.Mutex // one Write at a time, so that writes do not interleave

	// The receiving half, filled by the transmit queue's goroutine.
	mu       sync.Mutex
	rcond    sync.Cond
	buf      recvBuffer
	direct   []byte // the slice of a waiting Read ...
	directN  int    // ... and how much of it is filled
	readErr  error  // what Read returns once buf is empty
	readStop error  // what Read returns now (Close, CloseRead)
	readDL   deadline
	rxCnt    uint32        // bytes that the guest sent
	fwdCnt   atomic.Uint32 // bytes that the reader took
	fwdSent  atomic.Uint32 // the value of fwdCnt that the guest knows
	bufAlloc uint32        // credit given; constant

	send sendHalf // under d.out.mu
}

// newConn makes a connection that is not in the table yet.
func newConn(d *Device, hostPort, guestPort, bufAlloc uint32) *Conn {
	c := &Conn{
		d:        d,
		key:      makeKey(hostPort, guestPort),
		local:    Addr{CID: HostCID, Port: hostPort},
		remote:   Addr{CID: uint32(d.cfg.GuestCID), Port: guestPort},
		opened:   make(chan struct{}),
		bufAlloc: bufAlloc,
	}
	c.owners.Store(2)
	c.rcond.L = &c.mu
	c.send.cond.L = &d.out.mu
	return c
}

// open gives Dial its answer; the first one counts.
func (c *Conn) open(err error) {
	c.openOnce.Do(func() {
		c.openErr = err
		close(c.opened)
	})
}

// connKey names a connection: there is one pair of CIDs only.
type connKey uint64

func makeKey(hostPort, guestPort uint32) connKey {
	return connKey(hostPort)<<32 | connKey(guestPort)
}

func (k connKey) hostPort() uint32  { return uint32(k >> 32) }
func (k connKey) guestPort() uint32 { return uint32(k) }

// LocalAddr returns the host's end, an Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the guest's end, an Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "vsock", Source: c.local, Addr: c.remote, Err: err}
}

// Read reads what the guest sent. io.EOF means that the guest shut down its
// sending side and all of its data was read.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	n, err := c.read(p)
	if n > 0 {
		c.announceCredit()
	}
	return n, c.opError("read", err)
}

func (c *Conn) read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.readStop != nil:
			return 0, c.readStop
		case c.readDL.expired:
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case c.buf.n > 0:
			n := c.buf.read(p)
			c.fwdCnt.Add(uint32(n))
			return n, nil
		case c.readErr != nil:
			return 0, c.readErr
		}
		c.direct, c.directN = p, 0
		c.rcond.Wait()
		n := c.directN
		c.direct, c.directN = nil, 0
		if n > 0 {
			return n, nil // receive already counted it as taken
		}
	}
}

// announceCredit tells the guest about freed space once that is half of the
// buffer: seldom enough to cost little, and always before the guest has none.
func (c *Conn) announceCredit() {
	if c.fwdCnt.Load()-c.fwdSent.Load() < c.bufAlloc/2 {
		return
	}
	c.d.request(c, ctlCredit)
}

// receive takes n bytes of a data packet from the chain. It reports false when
// the guest sent more than it had credit for.
func (c *Conn) receive(cur *cursor, n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uint64(c.rxCnt-c.fwdCnt.Load())+uint64(n) > uint64(c.bufAlloc) {
		return false
	}
	c.rxCnt += uint32(n)
	if c.readStop != nil || c.readErr != nil {
		c.fwdCnt.Add(uint32(n)) // nobody will read it
		return true
	}
	if c.direct != nil && n > 0 {
		m := cur.read(c.direct[c.directN:min(len(c.direct), c.directN+n)])
		if m > 0 {
			if c.directN == 0 {
				c.rcond.Broadcast()
			}
			c.directN += m
			c.fwdCnt.Add(uint32(m))
			n -= m
		}
	}
	if n > 0 {
		a, b := c.buf.reserve(n, int(c.bufAlloc))
		cur.read(a)
		cur.read(b)
		c.buf.commit(n)
	}
	return true
}

// Write sends p. It waits for the guest's credit and receive buffers.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	o := &c.d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &c.send
	switch {
	case s.err != nil:
		return 0, c.opError("write", s.err)
	case s.dl.expired:
		return 0, c.opError("write", os.ErrDeadlineExceeded)
	case len(p) == 0:
		return 0, nil
	}
	s.pending = p
	o.enqueue(c)
	o.pump()
	for len(s.pending) > 0 && s.err == nil && !s.dl.expired {
		s.cond.Wait()
	}
	left := len(s.pending)
	s.pending = nil
	if s.probe != nil {
		s.probe.Stop()
	}
	var err error
	if left > 0 {
		if err = s.err; err == nil {
			err = os.ErrDeadlineExceeded
		}
	}
	return len(p) - left, c.opError("write", err)
}

// CloseWrite tells the guest that no more data comes; it reads to the end and
// then sees EOF. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.stopWrite(ErrShutdown)
	c.d.shutdown(c, shutSend)
	return nil
}

// CloseRead tells the guest that its data is not read any more. Data on its
// way is thrown away, and Read returns io.EOF.
func (c *Conn) CloseRead() error {
	c.stopRead(io.EOF)
	c.d.shutdown(c, shutReceive)
	return nil
}

// Close ends both directions. What Write accepted still reaches the guest:
// in the background the connection waits up to Config.CloseTimeout for the
// guest's answer before it is reset. Blocked calls return net.ErrClosed.
func (c *Conn) Close() error {
	err := c.opError("close", net.ErrClosed)
	c.closed.Do(func() {
		err = nil
		c.stopRead(net.ErrClosed)
		c.stopWrite(net.ErrClosed)
		c.d.closeConn(c)
		c.release()
	})
	return err
}

func (c *Conn) stopRead(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readStop == nil || c.readStop == io.EOF {
		c.readStop = err
	}
	c.readDL.stop()
	c.fwdCnt.Add(uint32(c.buf.n))
	c.buf.free()
	c.rcond.Broadcast()
}

func (c *Conn) stopWrite(err error) {
	o := &c.d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &c.send
	if s.err == nil || err == net.ErrClosed {
		s.err = err
	}
	s.cond.Broadcast() // Write counts what is left
	s.dl.stop()
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds the waiting of Read, also of one that waits now.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readStop == net.ErrClosed {
		return c.opError("set", net.ErrClosed)
	}
	c.readDL.set(&c.rcond, t)
	return nil
}

// SetWriteDeadline bounds the waiting of Write, also of one that waits now.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.d.out.mu.Lock()
	defer c.d.out.mu.Unlock()
	if c.send.err == net.ErrClosed {
		return c.opError("set", net.ErrClosed)
	}
	c.send.dl.set(&c.send.cond, t)
	return nil
}

// release drops one of the two owners.
func (c *Conn) release() {
	if c.owners.Add(-1) == 0 {
		c.d.forget(c)
	}
}

// deadline wakes a condition when its time comes; the condition's lock guards it.
type deadline struct {
	timer   *time.Timer
	gen     uint64
	expired bool
}

func (dl *deadline) set(cond *sync.Cond, t time.Time) {
	dl.stop()
	dl.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		dl.expired = true
		cond.Broadcast()
		return
	}
	gen := dl.gen
	dl.timer = time.AfterFunc(left, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		if dl.gen == gen { // not replaced since
			dl.expired = true
			cond.Broadcast()
		}
	})
}

func (dl *deadline) stop() {
	dl.gen++
	if dl.timer != nil {
		dl.timer.Stop()
		dl.timer = nil
	}
}
