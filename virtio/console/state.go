package console

import (
	"errors"
	"fmt"

	"github.com/hutchvm/hutch/virtio"
)

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// ErrState says that a saved state cannot be restored.
var ErrState = errors.New("console: invalid saved state")

// State is what the device remembers besides its queues. Output that was taken
// from the guest belongs to the Out of the device that took it and is not part of
// the state; Flush waits for it.
type State struct {
	Version    int
	Cols, Rows uint16
	Input      []byte // read from In and not yet taken by the guest
	TxHead     int    // transmit chain that was taken in part, or -1
	TxOffset   uint64 // how much of it was taken
}

// Save returns the device's state. The transport must be paused.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := d.size.Load()
	return State{
		Version:  StateVersion,
		Cols:     uint16(size),
		Rows:     uint16(size >> 16),
		Input:    append([]byte(nil), d.inBuf...),
		TxHead:   d.txHead,
		TxOffset: d.txOff,
	}
}

// Restore takes a saved state, before the transport's Restore.
func (d *Device) Restore(s State) error {
	switch {
	case s.Version != StateVersion:
		return fmt.Errorf("%w: version %d", ErrState, s.Version)
	case len(s.Input) > inSize:
		return fmt.Errorf("%w: %d bytes of input", ErrState, len(s.Input))
	case s.TxHead < -1 || s.TxHead >= queueSize:
		return fmt.Errorf("%w: transmit chain %d", ErrState, s.TxHead)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size.Store(uint32(s.Rows)<<16 | uint32(s.Cols))
	d.inBuf = append(d.inBuf[:0], s.Input...)
	d.txHead, d.txOff = s.TxHead, s.TxOffset
	return nil
}

// resume finds the chain again that was taken in part. The caller holds d.mu.
func (d *Device) resume(s *virtio.Session) error {
	if d.txHead < 0 {
		return nil
	}
	q := s.Queue(txQueue)
	if q == nil {
		return fmt.Errorf("%w: transmit chain without a queue", ErrState)
	}
	if err := q.Reload(uint16(d.txHead), &d.tx); err != nil {
		return fmt.Errorf("%w: transmit chain: %w", ErrState, err)
	}
	if d.txOff > d.tx.ReadableLen {
		return fmt.Errorf("%w: offset %d in a transmit chain of %d bytes", ErrState, d.txOff, d.tx.ReadableLen)
	}
	return nil
}
