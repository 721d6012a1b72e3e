package vsock

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// What a connection wants to say besides data. One bit each, so that however
// often something is asked for it is queued once.
const (
	ctlRequest = 1 << iota
	ctlResponse
	ctlCredit
	ctlProbe // CREDIT_REQUEST
	ctlShutdown
)

const (
	// maxInFlight bounds the unacknowledged bytes whatever window the guest
	// claims, so that the 32-bit counters stay comparable.
	maxInFlight = 1 << 30
	// pumpBatch is how many packets are sent before others may have the lock.
	pumpBatch = 64
	// resetStall: with so many resets waiting for receive buffers, the transmit
	// queue is not served any more (the guest flooded us and gives no buffers).
	resetStall = 256

	probeFirst = 20 * time.Millisecond
	probeMax   = time.Second
)

// sendHalf is the part of a connection that out.mu guards. credit and sent are
// atomic because the transmit queue updates them without that lock.
type sendHalf struct {
	cond    sync.Cond
	pending []byte // what the waiting Write still has to send
	err     error  // why Write fails
	gone    bool   // not in the table any more: never speak for it again
	ctl     uint8
	shut    uint32 // SHUTDOWN flags sent or to be sent
	dl      deadline

	next   *Conn // the round-robin list
	queued bool

	sent    atomic.Uint32 // bytes sent, modulo 2^32
	credit  atomic.Uint64 // the guest's buf_alloc << 32 | fwd_cnt
	starved atomic.Bool   // data is pending and the credit is used up

	linger     *time.Timer // resets a closed connection that gets no answer
	probe      *time.Timer // asks for credit when none came for a while
	probeDelay time.Duration
}

// window returns how many bytes may be sent. A buffer that shrank below what
// is in flight leaves none.
func (s *sendHalf) window() int {
	v := s.credit.Load()
	alloc, flight := uint32(v>>32), s.sent.Load()-uint32(v)
	if alloc = min(alloc, maxInFlight); flight >= alloc {
		return 0
	}
	return int(alloc - flight)
}

// acknowledge takes the guest's credit fields. It reports false when fwd_cnt
// ran backwards or counts bytes that were never sent. Only the transmit
// queue's goroutine calls it.
func (s *sendHalf) acknowledge(h *header) bool {
	old := uint32(s.credit.Load())
	if h.fwdCnt-old > s.sent.Load()-old {
		return false
	}
	s.credit.Store(uint64(h.bufAlloc)<<32 | uint64(h.fwdCnt))
	return true
}

type resetEntry struct {
	key connKey
	typ uint16
}

// out is the host's sending side: it owns the guest's receive ring. Any
// goroutine that has something to send takes the lock and fills buffers
// itself, so a Write that finds credit and buffers needs no other goroutine.
type out struct {
	mu   sync.Mutex
	d    *Device
	sess *virtio.Session // nil: no driver
	q    *virtq.Queue

	paused     bool
	chain      virtq.Chain
	head, tail *Conn
	resets     []resetEntry // FIFO in a fixed ring
	resetR     int
	resetN     int
	stalled    bool // the transmit queue waits for the resets to go out
}

// enqueue puts c at the end of the round-robin list.
func (o *out) enqueue(c *Conn) {
	s := &c.send
	if s.queued || s.gone {
		return
	}
	s.queued, s.next = true, nil
	if o.tail == nil {
		o.head = c
	} else {
		o.tail.send.next = c
	}
	o.tail = c
}

func (o *out) popHead() *Conn {
	c := o.head
	if o.head = c.send.next; o.head == nil {
		o.tail = nil
	}
	c.send.queued, c.send.next = false, nil
	return c
}

// pushReset queues a RST for a key without a connection. The ring is large enough
// for every connection of the table plus what the transmit queue may add
// before it stalls; beyond that it is dropped, and the guest learns of it when it
// next speaks on that connection.
func (o *out) pushReset(key connKey, typ uint16) {
	e := resetEntry{key, typ}
	if o.resetN == len(o.resets) {
		return
	}
	if o.resetN > 0 && o.resets[(o.resetR+o.resetN-1)%len(o.resets)] == e {
		return
	}
	o.resets[(o.resetR+o.resetN)%len(o.resets)] = e
	o.resetN++
}

// stall reports whether the transmit queue must wait; pump wakes it.
func (o *out) stall() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stalled = o.resetN >= resetStall
	return o.stalled
}

// request asks for a control packet.
func (d *Device) request(c *Conn, ctl uint8) {
	o := &d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.send.gone {
		return
	}
	c.send.ctl |= ctl
	o.enqueue(c)
	o.pump()
}

// shutdown asks for a SHUTDOWN packet.
func (d *Device) shutdown(c *Conn, flags uint32) {
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	d.out.shutdown(c, flags)
}

func (o *out) shutdown(c *Conn, flags uint32) {
	s := &c.send
	if s.gone || s.shut|flags == s.shut {
		return
	}
	s.shut |= flags
	s.ctl |= ctlShutdown
	o.enqueue(c)
	o.pump()
}

// nextOp picks what c sends next; 0 is nothing now.
func (o *out) nextOp(c *Conn) uint16 {
	s := &c.send
	data := len(s.pending) > 0 && s.err == nil
	switch {
	case s.gone:
		return 0
	case s.ctl&ctlRequest != 0:
		return opRequest
	case s.ctl&ctlResponse != 0:
		return opResponse
	}
	if data {
		if s.window() > 0 {
			return opData
		}
		s.starved.Store(true)
		if s.window() > 0 { // came between the two looks
			s.starved.Store(false)
			return opData
		}
		o.armProbe(c)
	}
	switch {
	case s.ctl&ctlCredit != 0:
		return opCreditUpdate
	case s.ctl&ctlProbe != 0:
		return opCreditRequest
	case s.ctl&ctlShutdown != 0:
		return opShutdown
	}
	return 0
}

// armProbe starts the timer that asks the guest for its credit.
func (o *out) armProbe(c *Conn) {
	s := &c.send
	if s.probe == nil {
		s.probe = time.AfterFunc(probeFirst, func() { o.probe(c) })
		s.probeDelay = probeFirst
		return
	}
	s.probe.Reset(max(s.probeDelay, probeFirst))
}

func (o *out) probe(c *Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &c.send
	if s.gone || s.err != nil || len(s.pending) == 0 || !s.starved.Load() {
		return
	}
	s.probeDelay = min(2*s.probeDelay, probeMax)
	s.ctl |= ctlProbe
	o.enqueue(c)
	o.pump()
}

// pump fills the guest's receive buffers with what there is to say, a packet
// for each connection in turn. The lock is held on entry and on return, and
// given away between batches.
func (o *out) pump() {
	for o.pumpBatch() {
		o.mu.Unlock()
		o.mu.Lock()
	}
}

// pumpBatch reports whether there was more than it wanted to do at once. It
// runs on users' goroutines, so it turns a fault on guest memory (its
// backing file was truncated) into the device's failure by itself.
func (o *out) pumpBatch() (more bool) {
	if o.q == nil || o.paused || o.head == nil && o.resetN == 0 {
		return false
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			o.fail(fmt.Errorf("vsock: receive ring: panic: %v", r))
			more = false
		}
	}()
	used := 0
	for used < pumpBatch {
		var c *Conn
		var op uint16 = opReset
		if o.resetN == 0 {
			if c = o.head; c == nil {
				break
			}
			if op = o.nextOp(c); op == 0 {
				o.popHead()
				continue
			}
		}
		ok, err := o.q.Next(&o.chain)
		if err != nil {
			o.fail(err)
			return false
		}
		if !ok {
			if o.q.EnableNotify() {
				o.q.DisableNotify()
				continue
			}
			break // the driver's next buffers call HandleQueue
		}
		o.q.Push(o.chain.Head, o.fill(c, op))
		used++
	}
	if used > 0 {
		o.sess.Notify(queueRX)
	}
	if o.stalled && o.resetN < resetStall/2 {
		o.stalled = false
		o.sess.Wake(queueTX)
	}
	return used == pumpBatch
}

func (o *out) fail(err error) {
	sess := o.sess
	o.q, o.sess = nil, nil
	go func() { // both take locks
		sess.Fail(err)
		o.d.dropAll(ErrReset)
	}()
}

// fill writes one packet into the chain and returns its size. A chain that is
// too short stays unused; the packet waits for the next one.
func (o *out) fill(c *Conn, op uint16) uint32 {
	room := o.chain.WritableLen
	if room < headerSize || op == opData && room == headerSize {
		return 0
	}
	h := header{srcCID: HostCID, dstCID: o.d.cfg.GuestCID, typ: typeStream, op: op}
	var data []byte
	if c == nil {
		e := o.resets[o.resetR]
		o.resetR, o.resetN = (o.resetR+1)%len(o.resets), o.resetN-1
		o.d.stats.resets.Add(1)
		h.srcPort, h.dstPort, h.typ = e.key.hostPort(), e.key.guestPort(), e.typ
	} else {
		data = o.prepare(c, &h, int(min(room-headerSize, 1<<30)))
	}
	var b [headerSize]byte
	h.encode(&b)
	o.d.stats.rxPackets.Add(1)
	o.d.stats.rxBytes.Add(uint64(len(data)))
	cur := cursor{bufs: o.chain.Writable}
	cur.write(b[:])
	cur.write(data)
	if c != nil && op == opData && len(c.send.pending) == 0 {
		c.send.cond.Broadcast()
	}
	return headerSize + uint32(len(data))
}

// prepare completes the header, takes the packet's data off the pending Write
// and moves c to its next place in the list.
func (o *out) prepare(c *Conn, h *header, room int) (data []byte) {
	s := &c.send
	h.srcPort, h.dstPort = c.local.Port, c.remote.Port
	h.bufAlloc, h.fwdCnt = c.bufAlloc, c.fwdCnt.Load()
	c.fwdSent.Store(h.fwdCnt)
	s.ctl &^= ctlCredit // every packet carries it
	switch h.op {
	case opRequest:
		s.ctl &^= ctlRequest
	case opResponse:
		s.ctl &^= ctlResponse
	case opCreditRequest:
		s.ctl &^= ctlProbe
	case opShutdown:
		s.ctl &^= ctlShutdown
		h.flags = s.shut
	case opData:
		n := min(len(s.pending), s.window(), room)
		data = s.pending[:n]
		s.pending = s.pending[n:]
		h.length = uint32(n)
		s.sent.Add(uint32(n)) // before the guest can acknowledge it
		s.starved.Store(false)
		s.probeDelay = probeFirst
	}
	o.popHead()
	if s.ctl != 0 || len(s.pending) > 0 {
		o.enqueue(c)
	}
	return data
}
