package vsock

import "fmt"

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 2

// State is what a snapshot keeps of the device. Connections are not part of it:
// their other ends are not in the snapshot, so after Restore the guest is told
// that they are gone. Listeners belong to the process, not to the state.
type State struct {
	Version  int
	GuestCID uint64
	NextPort uint32 // so that host ports are not used again at once
	// Alone says that there were no connections, so that the guest need not be
	// told of their end.
	Alone bool
}

// Save returns the state. It also does what Quiesce does.
func (d *Device) Save() State {
	d.Quiesce()
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{Version: StateVersion, GuestCID: d.cfg.GuestCID, NextPort: d.nextPort, Alone: len(d.conns) == 0 && !d.event.owed()}
}

// Restore prepares a new device for a restored guest: the next session begins
// with VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (5.10.6.7), upon which the driver
// drops its connections and reads its CID anew, so the CID may differ. Dial waits
// until the driver has seen it. A guest that had no connections and keeps its CID
// is not told, so that it can connect at once.
func (d *Device) Restore(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("vsock: restore: state version %d, want %d", s.Version, StateVersion)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess != nil {
		return fmt.Errorf("vsock: restore: device is active")
	}
	if s.NextPort >= firstDialPort && s.NextPort < 1<<32-1 {
		d.nextPort = s.NextPort
	}
	d.event.mu.Lock()
	d.event.pending = !s.Alone || s.GuestCID != d.cfg.GuestCID
	d.event.mu.Unlock()
	return nil
}
