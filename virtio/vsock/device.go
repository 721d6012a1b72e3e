// Package vsock is a virtio socket device (Virtio 1.2, 5.10) whose host side is
// this process: the guest's AF_VSOCK streams are net.Conn values here, with no
// help of the host's kernel.
//
// The guest is hostile. Whatever it sends costs at most the connection that it
// sent it on; memory is bounded by Config. Answers that find no receive
// buffers are merged, and past a bound the transmit queue is left alone until
// the guest takes some.
package vsock

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

const (
	queueRX    = 0 // filled by us
	queueTX    = 1
	queueEvent = 2

	featureStream = 1 << 0 // VIRTIO_VSOCK_F_STREAM

	eventTransportReset = 0 // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET

	firstDialPort = 1 << 30 // clear of what people listen on

	// eventTimeout: dials that wait for the guest to see a transport reset go
	// ahead after this time.
	eventTimeout = 2 * time.Second
)

var _ virtio.KickHandler = (*Device)(nil)

// Device is the virtio device and its socket table. All methods meant for users
// (Dial, Listen, Stats, Close) are safe for concurrent use.
//
// Locks: mu guards the table, Conn.mu a connection's receiving half, out.mu all
// sending halves and the receive ring. No goroutine holds two of them.
type Device struct {
	cfg Config
	out out

	mu        sync.Mutex
	sess      *virtio.Session // nil without a driver
	ready     chan struct{}   // closed while Dial may go ahead
	closed    bool
	conns     map[connKey]*Conn
	listeners map[uint32]*Listener
	nextPort  uint32
	open      int // connections that the table or a user still holds
	promised  int // credit given to them, bytes

	// Owned by the transmit queue's goroutine.
	tx      *virtio.Session
	txChain virtq.Chain
	// Completions that the guest has not been told of.
	txQuiet      int
	txQuietBytes uint64

	event eventState

	stats struct {
		rxBytes, txBytes, rxPackets, txPackets, dropped, resets atomic.Uint64
	}
}

var _ virtio.Device = (*Device)(nil)

// New returns a device for virtio.NewMMIO. Listen and Dial work at once; Dial
// waits for the guest's driver.
func New(cfg Config) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{
		cfg:       cfg,
		ready:     make(chan struct{}),
		conns:     make(map[connKey]*Conn),
		listeners: make(map[uint32]*Listener),
		nextPort:  firstDialPort,
	}
	d.out.d = d
	d.event.timeout = eventTimeout
	d.out.resets = make([]resetEntry, cfg.MaxConns+resetStall)
	return d, nil
}

// ID returns 19, the socket device.
func (d *Device) ID() uint32 { return virtio.IDVsock }

// Features offers VIRTIO_VSOCK_F_STREAM.
func (d *Device) Features() uint64 { return featureStream }

// QueueSizes returns the sizes of the receive, transmit and event queue.
func (d *Device) QueueSizes() []uint16 {
	return []uint16{d.cfg.RXQueueSize, d.cfg.QueueSize, d.cfg.QueueSize}
}

// Activate starts a session with the guest's driver.
func (d *Device) Activate(s *virtio.Session) error {
	if s.Queue(queueRX) == nil || s.Queue(queueTX) == nil {
		return errors.New("vsock: activate: the driver did not set up both data queues")
	}
	d.mu.Lock()
	if d.sess != nil {
		d.mu.Unlock()
		return errors.New("vsock: activate: already active")
	}
	d.sess = s
	d.tx = s
	if !d.event.arm(d, s) && !d.closed {
		close(d.ready)
	}
	d.mu.Unlock()

	d.out.mu.Lock()
	d.out.sess, d.out.q, d.out.paused = s, s.Queues[queueRX], false
	d.out.mu.Unlock()
	return nil
}

// HandleQueue serves one queue on the transport's goroutine for it.
func (d *Device) HandleQueue(q int) error {
	switch q {
	case queueRX:
		o := &d.out
		o.mu.Lock()
		defer o.mu.Unlock()
		o.paused = false
		if o.q != nil {
			o.q.DisableNotify()
			o.pump()
		}
		return nil
	case queueTX:
		return d.handleTX()
	case queueEvent:
		return d.handleEvent()
	}
	return nil
}

// HandleKick serves one queue on a vCPU's goroutine: to take a packet is less work
// than to wake somebody for it.
func (d *Device) HandleKick(q int) error { return d.HandleQueue(q) }

// Quiesce ends the work that other goroutines do on guest memory, which is the
// filling of the receive ring by Write. The next HandleQueue resumes it.
func (d *Device) Quiesce() {
	d.out.mu.Lock()
	d.out.paused = true
	d.out.mu.Unlock()
	d.event.putBack()
}

// Reset drops every connection: their users see ErrReset. Listeners stay.
func (d *Device) Reset() {
	d.mu.Lock()
	d.sess, d.tx = nil, nil
	if !d.closed {
		select {
		case <-d.ready:
			d.ready = make(chan struct{})
		default:
		}
	}
	d.event.disarm()
	d.mu.Unlock()

	// No connection is made without a session, so these are all of them; each
	// is marked gone before the list is cleared, and nothing old can be queued
	// for the next driver.
	d.dropAll(ErrReset)

	o := &d.out
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.head != nil {
		o.popHead()
	}
	o.q, o.sess = nil, nil
	o.chain = virtq.Chain{} // holds slices of guest memory
	o.resetR, o.resetN, o.stalled, o.paused = 0, 0, false, false
	d.txChain, d.txQuiet, d.txQuietBytes = virtq.Chain{}, 0, 0
}

// Close ends every connection and listener with net.ErrClosed and refuses new
// ones. It waits for nothing. The transport is closed by its owner.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	listeners := make([]*Listener, 0, len(d.listeners))
	for _, l := range d.listeners {
		listeners = append(listeners, l)
	}
	select {
	case <-d.ready: // a later Dial finds closed set
	default:
		close(d.ready) // wakes the waiting ones
	}
	d.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	d.dropAll(net.ErrClosed)
	return nil
}

func (d *Device) dropAll(err error) {
	d.mu.Lock()
	conns := make([]*Conn, 0, len(d.conns))
	for _, c := range d.conns {
		conns = append(conns, c)
	}
	d.mu.Unlock()
	for _, c := range conns {
		d.drop(c, err, err == net.ErrClosed)
	}
}

// Stats are counters since the device was made.
type Stats struct {
	RxBytes, TxBytes     uint64 // payload to the guest, from the guest
	RxPackets, TxPackets uint64
	Dropped              uint64 // packets that were not for us or made no sense
	Resets               uint64 // RST sent
	Conns                int    // connections now
}

// Stats returns the counters.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	n := len(d.conns)
	d.mu.Unlock()
	return Stats{
		RxBytes:   d.stats.rxBytes.Load(),
		TxBytes:   d.stats.txBytes.Load(),
		RxPackets: d.stats.rxPackets.Load(),
		TxPackets: d.stats.txPackets.Load(),
		Dropped:   d.stats.dropped.Load(),
		Resets:    d.stats.resets.Load(),
		Conns:     n,
	}
}
