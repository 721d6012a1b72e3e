package net

import "fmt"

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is what a snapshot keeps of the card. Frames on their way are not part of
// it: a network may lose frames, and the backend of a restored card is a new one.
type State struct {
	Version     int
	MAC         [6]byte
	MTU         int
	LinkUp      bool
	ActivePairs int
}

// Save returns the state. It also does what Quiesce does.
func (d *Device) Save() State {
	d.Quiesce()
	return State{
		Version:     StateVersion,
		MAC:         d.cfg.MAC,
		MTU:         d.cfg.MTU,
		LinkUp:      d.linkUp.Load(),
		ActivePairs: max(int(d.active.Load()), 1),
	}
}

// Restore prepares a new card for a restored guest, which knows its address and
// MTU and does not ask again: they must be the saved ones. The link is as it was
// saved, whatever Config says.
func (d *Device) Restore(s State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.sess.Load() != nil:
		return fmt.Errorf("net: restore: device is active")
	case s.Version != StateVersion:
		return fmt.Errorf("net: restore: state version %d, want %d", s.Version, StateVersion)
	case s.MAC != d.cfg.MAC:
		return fmt.Errorf("net: restore: MAC is %x in the state, %x here", s.MAC, d.cfg.MAC)
	case s.MTU != d.cfg.MTU:
		return fmt.Errorf("net: restore: MTU is %d in the state, %d here", s.MTU, d.cfg.MTU)
	case s.ActivePairs < 1 || s.ActivePairs > d.cfg.Pairs:
		return fmt.Errorf("net: restore: state has %d active queue pairs, the card %d", s.ActivePairs, d.cfg.Pairs)
	}
	d.linkUp.Store(s.LinkUp)
	d.restored = &s
	return nil
}
