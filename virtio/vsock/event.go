package vsock

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// eventState tells the guest once, after a restore, that its connections are
// gone. Linux then resets all of its connected sockets, one made just now
// included; so dials wait until the driver gave its event buffer back, which it
// does after that. To see this the other buffers are taken for the time being.
type eventState struct {
	mu      sync.Mutex
	pending bool // a transport reset is owed, or sent and not handled yet
	sent    bool
	q       *virtq.Queue
	held    []*virtq.Chain // taken, in ring order
	timer   *time.Timer
	timeout time.Duration
}

// arm is called under d.mu; it reports whether dials have to wait.
func (e *eventState) arm(d *Device, s *virtio.Session) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.q, e.sent = s.Queue(queueEvent), false
	if e.q == nil { // a driver without that queue cannot be told
		e.pending = false
	}
	if e.pending {
		e.timer = time.AfterFunc(e.timeout, func() { d.openGate(s) })
	}
	return e.pending
}

// owed reports whether the guest still has to be told.
func (e *eventState) owed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pending
}

func (e *eventState) disarm() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending, e.sent, e.q, e.held = false, false, nil, nil
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

// putBack returns the buffers that were taken, the last one first. An event
// that was not seen to be handled is sent again later, which does no harm.
func (e *eventState) putBack() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.held) - 1; i >= 0; i-- {
		e.q.Undo(e.held[i])
	}
	e.held, e.sent = nil, false
}

// openGate lets dials go ahead, if the session is still the same.
func (d *Device) openGate(s *virtio.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess != s || s == nil {
		return
	}
	select {
	case <-d.ready:
	default:
		close(d.ready)
	}
}

// handleEvent sends the event, and later notices that it was handled.
func (d *Device) handleEvent() error {
	d.mu.Lock()
	sess := d.sess
	d.mu.Unlock()
	if sess == nil {
		return nil
	}
	handled, err := d.event.step(sess)
	if handled {
		d.event.putBack()
		d.openGate(sess)
	}
	return err
}

func (e *eventState) step(sess *virtio.Session) (handled bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.pending || e.q == nil {
		return false, nil
	}
	for more := true; more; more = e.q.EnableNotify() {
		for {
			c := new(virtq.Chain)
			ok, err := e.q.Next(c)
			if err != nil {
				return false, err
			}
			if !ok {
				break
			}
			e.held = append(e.held, c)
			if e.sent {
				e.pending = false
				return true, nil
			}
		}
	}
	// Every buffer is held, so the next one to come is the answer.
	for len(e.held) > 0 && !e.sent {
		c := e.held[0]
		e.held = e.held[1:]
		var b [4]byte // struct virtio_vsock_event
		binary.LittleEndian.PutUint32(b[:], eventTransportReset)
		n := c.Writable.CopyFrom(b[:], 0)
		e.sent = n == len(b) // one that is too short goes back unused
		e.q.Push(c.Head, uint32(n))
	}
	sess.Notify(queueEvent)
	return false, nil
}
