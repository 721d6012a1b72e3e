package blk

import "fmt"

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is what a snapshot keeps of the device. The disk's content is not part
// of it; the guest expects the same disk behind a restored device.
type State struct {
	Version   int
	Capacity  uint64 // sectors
	ReadOnly  bool
	Writeback bool
}

// Save waits for requests in flight, as Quiesce does, and returns the state.
// Call it before the transport's Save: the rings count those requests.
func (d *Device) Save() State {
	d.Quiesce()
	return State{
		Version:   StateVersion,
		Capacity:  d.capacity.Load(),
		ReadOnly:  d.cfg.ReadOnly,
		Writeback: d.writeback.Load(),
	}
}

// Restore prepares a new device for a restored guest. The backend must be writable
// unless the saved one was not. One of another size is announced to the driver as
// soon as the guest runs; whether a guest can do with a smaller one is for the
// caller to know: a guest that has mounted the disk cannot.
func (d *Device) Restore(s State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.sess != nil:
		return fmt.Errorf("blk: restore: device is active")
	case s.Version != StateVersion:
		return fmt.Errorf("blk: restore: state version %d, want %d", s.Version, StateVersion)
	case s.ReadOnly != d.cfg.ReadOnly:
		return fmt.Errorf("blk: restore: read-only is %v in the state, %v here", s.ReadOnly, d.cfg.ReadOnly)
	}
	d.resized = s.Capacity != d.capacity.Load()
	d.writeback.Store(s.Writeback)
	d.restored = true
	return nil
}
