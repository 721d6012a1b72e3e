package fs

import "fmt"

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is what a snapshot keeps of the device. What the guest has looked up and
// opened is the handler's, and saved by whoever owns it.
type State struct {
	Version int
	Tag     string
	Queues  int
}

// Save waits for requests in flight, as Quiesce does, and returns the state.
// Call it before the transport's Save: the rings count those requests.
func (d *Device) Save() State {
	d.Quiesce()
	return State{Version: StateVersion, Tag: d.cfg.Tag, Queues: d.cfg.Queues}
}

// Restore prepares a new device for a restored guest, which must have the same
// tag and queues. Its handler begins without a session, or was given the one that
// belongs to the guest's memory.
func (d *Device) Restore(s State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.sess != nil:
		return fmt.Errorf("fs: restore: device is active")
	case s.Version != StateVersion:
		return fmt.Errorf("fs: restore: state version %d, want %d", s.Version, StateVersion)
	case s.Tag != d.cfg.Tag:
		return fmt.Errorf("fs: restore: tag is %q in the state, %q here", s.Tag, d.cfg.Tag)
	case s.Queues != d.cfg.Queues:
		return fmt.Errorf("fs: restore: %d request queues in the state, %d here", s.Queues, d.cfg.Queues)
	}
	return nil
}
