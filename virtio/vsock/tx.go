package vsock

import (
	"github.com/hutchvm/hutch/virtio/virtq"
)

const (
	// Completions are announced every so many packets and so many bytes. The
	// driver does nothing with them but free the packets: a writer waits for
	// credit, not for them, and an interrupt for each packet costs a stream a
	// tenth of its speed. What stays unannounced is little memory of the guest's.
	txNotifyEvery = 32
	txNotifyBytes = 256 << 10
	// txBudget bounds one HandleQueue call, so that a guest that never stops
	// sending cannot hold up a pause.
	txBudget = 2048
)

// handleTX takes the guest's packets. Only the transmit queue's goroutine runs it.
func (d *Device) handleTX() (err error) {
	sess := d.tx
	if sess == nil {
		return nil
	}
	// After an error or a panic nothing comes from this guest any more, and
	// nobody else would tell those who wait for it.
	panicking := true
	defer func() {
		if panicking || err != nil {
			d.dropAll(ErrReset)
		}
	}()
	q := sess.Queues[queueTX]
	q.DisableNotify()
	for n := 1; ; n++ {
		if d.out.stall() {
			break // pump wakes us
		}
		ok, err := q.Next(&d.txChain)
		if err != nil {
			panicking = false
			return err
		}
		if !ok {
			if !q.EnableNotify() {
				break
			}
			q.DisableNotify()
			continue
		}
		d.packet(&d.txChain)
		q.Push(d.txChain.Head, 0)
		d.txQuiet++
		d.txQuietBytes += d.txChain.ReadableLen
		if d.txQuiet >= min(txNotifyEvery, q.Size()/2) || d.txQuietBytes >= txNotifyBytes {
			d.txQuiet, d.txQuietBytes = 0, 0
			sess.Notify(queueTX)
		}
		if n >= txBudget {
			sess.Wake(queueTX)
			break
		}
	}
	panicking = false
	return nil
}

// packet handles one packet of the guest.
func (d *Device) packet(ch *virtq.Chain) {
	d.stats.txPackets.Add(1)
	cur := cursor{bufs: ch.Readable}
	var raw [headerSize]byte
	var h header
	if cur.read(raw[:]) < headerSize {
		d.stats.dropped.Add(1)
		return // no header, nobody to answer
	}
	h.decode(&raw)
	// A packet in another's name, or for another, cannot be answered: the answer
	// would go to this guest.
	if h.srcCID != d.cfg.GuestCID || h.dstCID != HostCID {
		d.stats.dropped.Add(1)
		return
	}
	key := makeKey(h.dstPort, h.srcPort)
	d.mu.Lock()
	c := d.conns[key]
	d.mu.Unlock()

	bad := h.typ != typeStream ||
		h.op < opRequest || h.op > opCreditRequest ||
		uint64(h.length) > ch.ReadableLen-headerSize
	switch {
	case bad && h.typ == typeStream && c != nil:
		d.drop(c, ErrReset, true)
	case bad, c == nil && h.op != opRequest:
		d.refuse(key, &h)
	case c == nil:
		d.accept(key, &h)
	default:
		if !d.connPacket(c, &h, &cur) {
			d.drop(c, ErrReset, true)
		}
	}
}

// connPacket handles a packet of a known connection. It reports false when the
// guest broke the protocol.
func (d *Device) connPacket(c *Conn, h *header, cur *cursor) bool {
	connecting := false
	select {
	case <-c.opened:
	default:
		connecting = true
	}
	if h.op == opReset {
		err := ErrReset
		if connecting {
			err = ErrRefused
		}
		d.drop(c, err, false)
		return true
	}
	s := &c.send
	if !s.acknowledge(h) {
		return false
	}
	if connecting != (h.op == opResponse) {
		return false
	}
	switch h.op {
	case opRequest:
		return false
	case opResponse:
		c.open(nil)
	case opData:
		if !c.receive(cur, int(h.length)) {
			return false
		}
		d.stats.txBytes.Add(uint64(h.length))
	case opShutdown:
		d.peerShutdown(c, h.flags)
	case opCreditRequest:
		d.request(c, ctlCredit)
	}
	if s.starved.Load() && s.window() > 0 && s.starved.CompareAndSwap(true, false) {
		d.request(c, 0)
	}
	return true
}

// refuse answers a packet that belongs to no connection. A RST gets no answer.
func (d *Device) refuse(key connKey, h *header) {
	d.stats.dropped.Add(1)
	if h.op == opReset {
		return
	}
	o := &d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pushReset(key, h.typ)
	o.pump()
}

// accept makes a connection that the guest asks for and gives it to the listener.
func (d *Device) accept(key connKey, h *header) {
	d.mu.Lock()
	l := d.listeners[key.hostPort()]
	if l == nil || len(l.queue) >= d.cfg.Backlog || d.open >= d.cfg.MaxConns || d.sess == nil {
		d.mu.Unlock()
		d.refuse(key, h)
		return
	}
	c := d.add(key)
	c.open(nil)
	c.send.credit.Store(uint64(h.bufAlloc) << 32)
	c.send.ctl = ctlResponse // before a Write of the accepting side
	l.queue = append(l.queue, c)
	l.cond.Signal()
	d.mu.Unlock()
	d.request(c, 0)
}

// peerShutdown takes the guest's SHUTDOWN flags. They never come back.
func (d *Device) peerShutdown(c *Conn, flags uint32) {
	if flags&shutSend != 0 {
		c.endOfData()
	}
	if flags&shutReceive != 0 {
		d.out.mu.Lock()
		if c.send.err == nil {
			c.send.err = ErrShutdown
			c.send.cond.Broadcast()
		}
		d.out.mu.Unlock()
	}
	c.peerShut |= flags & shutBoth
	if c.peerShut == shutBoth {
		// The guest closed it and waits for this reset to let go of the port.
		d.drop(c, ErrReset, true)
	}
}
