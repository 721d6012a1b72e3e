package net

import (
	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

const (
	// txNotifyEvery: completions are announced at least so often in a long run.
	txNotifyEvery = 64
	// txBudget bounds one HandleQueue call, so that a guest that never stops
	// sending cannot hold up a pause.
	txBudget = 1024
)

// txQueue belongs to the goroutine of its queue.
type txQueue struct {
	q     *virtq.Queue
	chain virtq.Chain
	frame Frame
}

// handleTX hands the guest's frames to the backend.
func (d *Device) handleTX(s *virtio.Session, pair int) error {
	t := &d.tx[pair]
	idx := 2*pair + 1
	defer s.Notify(idx)
	defer d.cfg.Backend.TransmitDone(pair)
	t.q.DisableNotify()
	for n := 1; ; n++ {
		ok, err := t.q.Next(&t.chain)
		if err != nil {
			return err
		}
		if !ok {
			if t.q.EnableNotify() {
				t.q.DisableNotify()
				continue
			}
			return nil
		}
		head := t.chain.Head
		if !d.transmit(s, pair) {
			// It will be parsed anew, so that what was changed in the chain
			// does not matter.
			t.q.Undo(&t.chain)
			return nil
		}
		t.q.Push(head, 0)
		if n%txNotifyEvery == 0 {
			s.Notify(idx)
		}
		if n >= txBudget {
			s.Wake(idx)
			return nil
		}
	}
}

// transmit shows the backend the frame in the pair's chain. It reports false when
// the backend cannot take it now. A frame that is wrong is dropped: it harms
// nobody but its sender.
func (d *Device) transmit(s *virtio.Session, pair int) bool {
	t := &d.tx[pair]
	c := &t.chain
	var b [headerLen]byte
	if c.Readable.CopyTo(b[:], 0) < headerLen || !d.linkUp.Load() {
		d.stats.txDrops.Add(1)
		return true
	}
	n := c.ReadableLen - headerLen
	if err := t.frame.Header.parse(&b, n, s.Features, d.cfg.MTU); err != nil {
		d.stats.txDrops.Add(1)
		return true
	}
	t.frame.Data, t.frame.Len = c.Readable.Skip(headerLen), int(n)
	ok := d.cfg.Backend.Transmit(pair, &t.frame)
	t.frame.Data = nil
	if ok {
		d.stats.txFrames.Add(1)
		d.stats.txBytes.Add(n)
	}
	return ok
}

// WakeTransmit makes the device show the backend the frames again that it did
// not take.
func (d *Device) WakeTransmit(pair int) {
	if s := d.sess.Load(); s != nil {
		s.Wake(2*pair + 1)
	}
}
