package rng

import (
	"errors"
	"fmt"
)

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// ErrState says that a saved state cannot be restored.
var ErrState = errors.New("rng: invalid saved state")

// State is what the device remembers: nothing. Random bytes that were not given
// out must never be part of a snapshot, or two clones would get the same.
type State struct {
	Version int
}

// Save returns the device's state.
func (d *Device) Save() State { return State{Version: StateVersion} }

// Restore takes a saved state.
func (d *Device) Restore(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("%w: version %d", ErrState, s.Version)
	}
	return nil
}
