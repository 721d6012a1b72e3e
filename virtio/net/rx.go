package net

import (
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// maxMerge bounds the chains that one frame is spread over. Linux gives buffers
// of at least 1.5 KiB, of which the largest frame takes 44.
const maxMerge = 128

// rxQueue is one receive queue. mu guards all of it, the ring included: whoever
// has a frame for the guest fills the guest's buffers himself.
type rxQueue struct {
	mu      sync.Mutex
	sess    *virtio.Session // nil: no driver
	q       *virtq.Queue
	paused  bool
	starved bool // a kick was asked for
	merge   bool
	chains  []virtq.Chain // grows to what frames take, at most maxMerge
}

func (r *rxQueue) begin(s *virtio.Session, q *virtq.Queue) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q == nil {
		return
	}
	r.sess, r.q, r.merge = s, q, s.Has(featureMrgRxbuf)
	// Nothing is received before the queue was served once: a restored device
	// is activated while the machine is still paused.
	r.paused, r.starved = true, true
	// Kicks say nothing while there are buffers left.
	q.DisableNotify()
}

func (r *rxQueue) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sess, r.q = nil, nil
}

func (r *rxQueue) pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = true
}

// handleRX runs after the guest gave buffers, and after a pause.
func (d *Device) handleRX(pair int) error {
	r := &d.rx[pair]
	r.mu.Lock()
	if r.q == nil {
		r.mu.Unlock()
		return nil
	}
	err := r.q.Err()
	ready := r.paused || r.starved
	if r.paused {
		r.sess.Notify(2 * pair) // what a Flush during the pause left out
	}
	r.paused, r.starved = false, false
	r.q.DisableNotify()
	r.mu.Unlock()
	if err == nil && ready {
		d.cfg.Backend.ReceiveReady(pair)
	}
	return err
}

// Receive copies a frame, whose pieces lie one behind the other, into buffers of
// the guest. The driver may not be told of it before Flush. The pieces are the
// caller's again when it returns. All of the frame is received, or nothing.
func (d *Device) Receive(pair int, h *Header, frame [][]byte) error {
	if pair < 0 || pair >= len(d.rx) {
		return ErrDown
	}
	n := 0
	for _, p := range frame {
		n += len(p)
	}
	r := &d.rx[pair]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sess == nil || !d.linkUp.Load() {
		return ErrDown
	}
	if n < ethHeader || n > MaxFrame {
		d.stats.rxDrops.Add(1)
		return ErrTooLarge
	}
	if !h.allowed(r.sess.Features) {
		return ErrOffload
	}
	if r.paused {
		return ErrNoBuffers
	}
	err := r.receive(h, frame, n+headerLen)
	switch err {
	case nil:
		d.stats.rxFrames.Add(1)
		d.stats.rxBytes.Add(uint64(n))
	case ErrNoBuffers:
		d.stats.rxNoBuffer.Add(1)
	default:
		d.stats.rxDrops.Add(1)
	}
	return err
}

// receive runs on the backend's goroutines, so it turns a fault on guest memory
// (its backing file was truncated) into the device's failure by itself.
func (r *rxQueue) receive(h *Header, frame [][]byte, total int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			r.sess.Fail(fmt.Errorf("net: receive ring: panic: %v", v))
			err = ErrDown
		}
	}()
	taken, err := r.take(total)
	if err == nil {
		r.fill(h, frame, total, taken)
	}
	return err
}

// take takes as many chains as want bytes need. When there are not enough it puts
// all of them back, so that a frame is never received in part.
func (r *rxQueue) take(want int) (int, error) {
	limit := 1
	if r.merge {
		limit = maxMerge
	}
	taken, err := 0, error(nil)
	for room := uint64(0); room < uint64(want); {
		if taken == limit {
			err = ErrTooLarge
			break
		}
		if taken == len(r.chains) {
			r.chains = append(r.chains, virtq.Chain{})
		}
		c := &r.chains[taken]
		ok, qerr := r.q.Next(c)
		if qerr != nil {
			// The ring is broken for good: no use in putting anything back.
			r.sess.Fail(qerr)
			return 0, ErrDown
		}
		if !ok {
			// Ask for a kick, and look again in case buffers came meanwhile.
			if r.q.EnableNotify() {
				continue
			}
			err = ErrNoBuffers
			break
		}
		taken++
		room += c.WritableLen
		if taken == 1 && c.WritableLen < headerLen {
			err = ErrTooLarge // 5.1.6.3: the first one holds the header
			break
		}
	}
	if err == nil {
		return taken, nil
	}
	for i := taken - 1; i >= 0; i-- {
		r.q.Undo(&r.chains[i])
	}
	r.starved = r.starved || err == ErrNoBuffers
	return 0, err
}

// fill copies header and frame, total bytes, and gives the chains back together:
// a driver that saw the first one only would take the frame for a broken one.
func (r *rxQueue) fill(h *Header, frame [][]byte, total, taken int) {
	buffers := uint16(1)
	if r.merge {
		buffers = uint16(taken)
	}
	var hdr [headerLen]byte
	h.put(&hdr, buffers)
	if !r.sess.Has(featureGuestCsum) {
		hdr[0] &^= flagDataValid // the driver would not know it
	}
	src, from := hdr[:], -1
	for i := range taken {
		c := &r.chains[i]
		written := uint32(0)
		for _, dst := range c.Writable {
			for len(dst) > 0 && total > 0 {
				for len(src) == 0 {
					from++
					src = frame[from]
				}
				n := copy(dst, src)
				dst, src = dst[n:], src[n:]
				written += uint32(n)
				total -= n
			}
		}
		r.q.Stage(c.Head, written)
	}
	r.q.Publish()
}

// Flush tells the guest of the frames received since the last Flush, if it wants
// to know.
func (d *Device) Flush(pair int) {
	if pair < 0 || pair >= len(d.rx) {
		return
	}
	r := &d.rx[pair]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sess != nil && !r.paused {
		r.sess.Notify(2 * pair)
	}
}
