package virtio

import (
	"fmt"

	"github.com/hutchvm/hutch/virtio/virtq"
)

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is all that a transport has to remember: plain data, to be stored with
// the device's own state. Restoring does not trust it.
type State struct {
	Version           int
	DeviceID          uint32
	Offered           uint64 // features, the transport's included
	Status            uint32
	DeviceFeaturesSel uint32
	DriverFeaturesSel uint32
	DriverFeatures    uint64
	QueueSel          uint32
	InterruptStatus   uint32
	Generation        uint32
	Queues            []QueueState
}

// QueueState is the state of one queue.
type QueueState struct {
	Size                 uint16
	Ready                bool
	Desc, Driver, Device uint64
	Ring                 virtq.State // empty before DRIVER_OK
}

// Save returns the transport's state. The transport must be paused, and so must
// the guest's CPUs.
func (m *MMIO) Save() (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || !m.paused {
		return State{}, &Error{Op: "save", Device: m.opt.Name, Err: m.notPaused()}
	}
	s := State{
		Version:           StateVersion,
		DeviceID:          m.dev.ID(),
		Offered:           m.features,
		Status:            m.statusWord(),
		DeviceFeaturesSel: m.devFeatSel,
		DriverFeaturesSel: m.drvFeatSel,
		DriverFeatures:    m.drvFeatures,
		QueueSel:          m.queueSel,
		InterruptStatus:   m.intStatus.Load(),
		Generation:        m.generation.Load(),
	}
	for i, q := range m.queues {
		qs := QueueState{Size: q.size, Ready: q.ready, Desc: q.desc, Driver: q.driver, Device: q.device}
		if m.session != nil && m.session.Queues[i] != nil {
			qs.Ring = m.session.Queues[i].State()
		}
		s.Queues = append(s.Queues, qs)
	}
	return s, nil
}

func (m *MMIO) notPaused() error {
	if m.closed {
		return ErrClosed
	}
	return ErrNotPaused
}

// Restore puts a saved state into a new, paused transport of the same kind of
// device, whose own state was restored before, over the same guest memory. The
// device is activated if it was active; queues are served from Resume on. A state
// that cannot be is refused with ErrState (CVE-2013-4150 and its kin were missing
// checks here) and leaves the transport reset.
func (m *MMIO) Restore(s State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || !m.paused {
		return &Error{Op: "restore", Device: m.opt.Name, Err: m.notPaused()}
	}
	if err := m.restore(s); err != nil {
		m.reset()
		return &Error{Op: "restore", Device: m.opt.Name, Err: err}
	}
	return nil
}

func (m *MMIO) restore(s State) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrState, fmt.Sprintf(format, args...))
	}
	if m.status != 0 {
		return bad("the transport is in use")
	}
	const (
		driver   = StatusAcknowledge | StatusDriver
		features = driver | StatusFeaturesOK
		ok       = features | StatusDriverOK
	)
	switch {
	case s.Version != StateVersion:
		return bad("version %d", s.Version)
	case s.DeviceID != m.dev.ID():
		return bad("device ID %d, not %d", s.DeviceID, m.dev.ID())
	case s.Offered != m.features:
		return bad("features %#x were offered, not %#x", s.Offered, m.features)
	case len(s.Queues) != len(m.queues):
		return bad("%d queues, not %d", len(s.Queues), len(m.queues))
	case s.InterruptStatus&^(intUsedBuffer|intConfigChange) != 0:
		return bad("interrupt status %#x", s.InterruptStatus)
	}
	st := s.Status &^ (StatusNeedsReset | StatusFailed)
	switch st {
	case 0, StatusAcknowledge:
		if s.DriverFeatures != 0 {
			return bad("features without a driver")
		}
	case driver:
	case features, ok:
		if s.DriverFeatures&^m.features != 0 || s.DriverFeatures&FeatureVersion1 == 0 {
			return bad("features %#x were negotiated of %#x", s.DriverFeatures, m.features)
		}
	default:
		return bad("status %#x", s.Status)
	}
	m.drvFeatures = s.DriverFeatures
	for i, q := range s.Queues {
		if q.Ready && st&StatusFeaturesOK == 0 {
			return bad("queue %d is ready too early", i)
		}
		m.queues[i] = queueRegs{size: q.Size, ready: q.Ready, desc: q.Desc, driver: q.Driver, device: q.Device}
		if q.Ready {
			if _, err := m.openQueue(i, &m.queues[i]); err != nil {
				return bad("queue %d: %v", i, err)
			}
		}
	}
	m.status = s.Status &^ StatusNeedsReset
	m.devFeatSel, m.drvFeatSel, m.queueSel = s.DeviceFeaturesSel, s.DriverFeaturesSel, s.QueueSel
	m.generation.Store(s.Generation)
	if st == ok && s.Status&StatusNeedsReset == 0 {
		session, err := m.newSession(s.Queues)
		if err != nil {
			return bad("%v", err)
		}
		m.session = session
		if err := m.callActivate(session); err != nil {
			return err
		}
	}
	// Last, because what activation raised is part of the saved status already.
	m.needsReset.Store(s.Status&StatusNeedsReset != 0)
	m.intStatus.Or(s.InterruptStatus)
	return nil
}
