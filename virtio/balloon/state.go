package balloon

import (
	"errors"
	"fmt"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// ErrState says that a saved state cannot be restored.
var ErrState = errors.New("balloon: invalid saved state")

// State is what the device remembers besides its queues.
type State struct {
	Version   int
	Target    uint32
	Actual    uint32
	StatsHead int // statistics buffer that the device holds, or -1
}

// Save returns the device's state. The transport must be paused.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{
		Version:   StateVersion,
		Target:    d.target.Load(),
		Actual:    d.actual.Load(),
		StatsHead: d.held,
	}
}

// Restore takes a saved state, before the transport's Restore.
func (d *Device) Restore(s State) error {
	switch {
	case s.Version != StateVersion:
		return fmt.Errorf("%w: version %d", ErrState, s.Version)
	case s.StatsHead < -1 || s.StatsHead >= queueSize:
		return fmt.Errorf("%w: statistics buffer %d", ErrState, s.StatsHead)
	case s.StatsHead >= 0 && d.features&FeatureStatsVQ == 0:
		return fmt.Errorf("%w: statistics buffer without statistics", ErrState)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target.Store(s.Target)
	d.actual.Store(s.Actual)
	d.held = s.StatsHead
	return nil
}

// resume checks that the queue agrees with what Restore said: the buffer that is
// held must really be in flight, or it would be given back twice.
func (d *Device) resume(s *virtio.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held < 0 {
		return nil
	}
	q := s.Queue(statsQueue)
	if q == nil || !s.Has(FeatureStatsVQ) {
		return fmt.Errorf("%w: statistics buffer without a queue", ErrState)
	}
	var c virtq.Chain
	if err := q.Reload(uint16(d.held), &c); err != nil {
		return fmt.Errorf("%w: statistics buffer: %w", ErrState, err)
	}
	return nil
}
