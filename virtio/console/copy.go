package console

import (
	"fmt"
	"io"

	"github.com/hutchvm/hutch/virtio"
)

// guard calls Read or Write. A panic in In or Out, which are not ours, ends the
// copying and not the process.
func guard(f func([]byte) (int, error), p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("console: %w: %v", virtio.ErrPanic, v)
		}
	}()
	return f(p)
}

// copyIn reads In as long as the guest takes what was read.
func (d *Device) copyIn() {
	buf := make([]byte, inChunk)
	for {
		d.mu.Lock()
		for len(d.inBuf)+inChunk > inSize && !d.closed {
			d.changed.Wait()
		}
		closed := d.closed
		d.mu.Unlock()
		if closed {
			return
		}
		n, err := guard(d.in.Read, buf)
		d.mu.Lock()
		d.inBuf = append(d.inBuf, buf[:n]...)
		s := d.session
		if err != nil && !d.closed {
			d.inErr = err
		}
		d.mu.Unlock()
		if n > 0 && s != nil {
			s.Wake(rxQueue)
		}
		if err != nil {
			return
		}
	}
}

// receive gives the guest what was read from In.
func (d *Device) receive(s *virtio.Session) error {
	vq := s.Queue(rxQueue)
	// As long as there is nothing to give, it does not matter that the guest
	// adds buffers.
	vq.DisableNotify()
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.inBuf) > 0 {
		ok, err := vq.Next(&d.rx)
		if err != nil {
			return err
		}
		if !ok {
			if vq.EnableNotify() {
				continue
			}
			return nil
		}
		n := d.rx.Writable.CopyFrom(d.inBuf, 0)
		rest := copy(d.inBuf, d.inBuf[n:])
		d.inBuf = d.inBuf[:rest]
		d.changed.Broadcast()
		vq.Push(d.rx.Head, uint32(n))
		s.Notify(rxQueue)
	}
	return nil
}

// transmit takes what the guest wrote, as far as there is room.
func (d *Device) transmit(s *virtio.Session) error {
	vq := s.Queue(txQueue)
	vq.DisableNotify()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.txHead < 0 {
			ok, err := vq.Next(&d.tx)
			if err != nil {
				return err
			}
			if !ok {
				if vq.EnableNotify() {
					continue
				}
				return nil
			}
			d.txHead, d.txOff = int(d.tx.Head), 0
		}
		if !d.take() {
			return nil // copyOut wakes us when there is room
		}
		vq.Push(uint16(d.txHead), 0)
		d.txHead, d.txOff = -1, 0
		s.Notify(txQueue)
	}
}

// take copies from the chain in tx to outBuf and reports whether it got all of it.
// The caller holds d.mu.
func (d *Device) take() bool {
	if d.out == nil || d.outErr != nil {
		return true // dropped
	}
	if d.outBuf == nil {
		d.outBuf = make([]byte, 0, outSize)
	}
	have := len(d.outBuf)
	room := d.outBuf[have:cap(d.outBuf)]
	n := d.tx.Readable.CopyTo(room, d.txOff)
	d.outBuf = d.outBuf[:have+n]
	d.txOff += uint64(n)
	if n > 0 {
		d.changed.Broadcast()
	}
	return d.txOff >= d.tx.ReadableLen
}

// copyOut writes to Out what was taken from the guest.
func (d *Device) copyOut() {
	spare := make([]byte, 0, outSize)
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for len(d.outBuf) == 0 {
			if d.closed {
				return
			}
			d.changed.Wait()
		}
		full := d.outBuf
		d.outBuf, d.idle = spare, false
		s := d.session
		d.mu.Unlock()
		if s != nil {
			s.Wake(txQueue) // there is room again
		}
		n, err := guard(d.out.Write, full)
		if err == nil && n < len(full) {
			err = io.ErrShortWrite
		}
		d.mu.Lock()
		spare, d.idle = full[:0], true
		d.changed.Broadcast()
		if err != nil {
			d.outErr = err
			d.outBuf = nil
			if d.session != nil {
				d.session.Wake(txQueue) // what waits is dropped from now on
			}
			return
		}
	}
}

// Flush waits until all that was taken from the guest so far was written to Out.
func (d *Device) Flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.out != nil && d.outErr == nil && d.started && (len(d.outBuf) > 0 || !d.idle) {
		d.changed.Wait()
	}
}
