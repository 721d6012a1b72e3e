package virtio

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"runtime/debug"

	"github.com/hutchvm/hutch/virtio/virtq"
)

// writeStatus is the driver's write to the status register (3.1.1). Each step of
// the initialization is taken alone and in order; a write that clears a bit, or
// comes out of order, is ignored. The caller holds m.mu.
func (m *MMIO) writeStatus(v uint32) {
	const (
		ack      = StatusAcknowledge
		driver   = ack | StatusDriver
		features = driver | StatusFeaturesOK
		ok       = features | StatusDriverOK
	)
	if v == 0 {
		m.reset()
		return
	}
	if v&StatusFailed != 0 && m.status&StatusFailed == 0 {
		// The driver gave up on the device, which is then left alone until reset.
		m.status |= StatusFailed
		m.stopWorkers()
		return
	}
	if m.status&StatusFailed != 0 || m.needsReset.Load() {
		return
	}
	switch {
	case m.status == 0 && v == ack,
		m.status == ack && v == driver:
		m.status = v
	case m.status == driver && v == features:
		// 2.2.2: a subset of the offered features, and VERSION_1 among them.
		if m.drvFeatures&^m.features == 0 && m.drvFeatures&FeatureVersion1 != 0 {
			m.status = v
		}
	case m.status == features && v == ok:
		m.status = v
		s, err := m.newSession(nil)
		if err != nil {
			m.fail(nil, "activate", err)
			return
		}
		m.activate(s)
	}
}

// newSession opens the queues that the driver made ready; states, if not nil,
// restores them.
func (m *MMIO) newSession(states []QueueState) (*Session, error) {
	s := &Session{
		Mem:      m.opt.Mem,
		Features: m.drvFeatures,
		Queues:   make([]*virtq.Queue, len(m.queues)),
		m:        m,
	}
	for i := range m.queues {
		if !m.queues[i].ready {
			continue
		}
		q, err := m.openQueue(i, &m.queues[i])
		if err != nil {
			return nil, fmt.Errorf("queue %d: %w", i, err)
		}
		if states != nil {
			if err := q.Restore(states[i].Ring); err != nil {
				return nil, fmt.Errorf("queue %d: %w", i, err)
			}
		}
		s.Queues[i] = q
	}
	return s, nil
}

// activate hands a session to the device and begins to serve its queues.
func (m *MMIO) activate(s *Session) {
	m.session = s
	if err := m.callActivate(s); err != nil {
		m.fail(s, "activate", err)
		return
	}
	m.startWorkers()
}

func (m *MMIO) callActivate(s *Session) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, v, debug.Stack())
		}
	}()
	return m.dev.Activate(s)
}

func (m *MMIO) startWorkers() {
	if m.session == nil || m.paused || m.closed || m.status&StatusFailed != 0 {
		return
	}
	for i, w := range m.workers {
		if m.session.Queues[i] != nil {
			w.start(m.session)
		}
	}
}

// stopWorkers returns when no HandleQueue runs and none will start.
func (m *MMIO) stopWorkers() {
	if m.session == nil {
		return
	}
	for _, w := range m.workers {
		w.halt(m.session)
	}
	for _, w := range m.workers {
		w.wait()
	}
}

// reset brings the device back to its initial state (2.4). It returns when
// nothing of the device touches guest memory any more, requests in flight
// included (CVE-2026-45782).
func (m *MMIO) reset() {
	if s := m.session; s != nil {
		s.end()
		m.stopWorkers()
		m.session = nil
		m.callReset()
	}
	m.status, m.drvFeatures = 0, 0
	m.devFeatSel, m.drvFeatSel, m.queueSel = 0, 0, 0
	clear(m.queues)
	m.needsReset.Store(false)
	m.intStatus.Store(0)
}

func (m *MMIO) callReset() {
	defer func() {
		if v := recover(); v != nil {
			m.report("reset", fmt.Errorf("%w: %v\n%s", ErrPanic, v, debug.Stack()))
		}
	}()
	m.dev.Reset()
}

// fail makes the device need a reset (2.1.2). Only the first failure of a session
// is reported. It does not take m.mu: it is called from HandleQueue.
func (m *MMIO) fail(s *Session, op string, err error) {
	if s != nil {
		for _, q := range s.Queues {
			if q != nil {
				q.Halt(true)
			}
		}
	}
	if m.needsReset.Swap(true) {
		return
	}
	m.interrupt(intConfigChange)
	m.report(op, err)
}

func (m *MMIO) report(op string, err error) {
	err = &Error{Op: op, Device: m.opt.Name, Err: err}
	if n := m.failures.Add(1); m.opt.Logger != nil && bits.OnesCount64(n) == 1 {
		m.opt.Logger.Error("virtio device needs a reset",
			slog.String("device", m.opt.Name), slog.Uint64("failures", n), slog.Any("error", err))
	}
	if m.opt.OnFailure != nil {
		m.opt.OnFailure(err)
	}
}

// Pause stops the work of the device. When it returns no HandleQueue runs, and
// none will until Resume; registers stay accessible. The guest's CPUs are
// normally stopped before. It is idempotent.
func (m *MMIO) Pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paused || m.closed {
		return
	}
	m.paused = true
	m.stopWorkers()
	if q, ok := m.dev.(quiescer); ok {
		q.Quiesce()
	}
}

// quiescer is a device that touches guest memory on goroutines of its own.
type quiescer interface {
	// Quiesce ends that. No HandleQueue runs; the next one resumes it.
	Quiesce()
}

// Resume undoes Pause. Every queue is served once, so that no kick is lost.
func (m *MMIO) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.paused || m.closed {
		return
	}
	m.paused = false
	m.startWorkers()
	// An interrupt that was raised before a snapshot may not have reached the
	// CPU; one too many does no harm.
	if m.intStatus.Load() != 0 {
		m.irq.add()
	}
}

// Close resets the device, closes it if it is an io.Closer, ends all goroutines
// and closes the eventfds. It waits for work in flight. Afterwards registers
// read as zero or as constants. It is idempotent. The hypervisor must have let
// go of the eventfds.
func (m *MMIO) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.reset()
	m.closed = true
	var err error
	if c, ok := m.dev.(io.Closer); ok {
		err = c.Close()
	}
	if err = errors.Join(err, m.closeFDs()); err != nil {
		return &Error{Op: "close", Device: m.opt.Name, Err: err}
	}
	return nil
}

func (m *MMIO) closeFDs() error {
	var errs []error
	for _, w := range m.workers {
		errs = append(errs, w.efd.f.Close())
	}
	return errors.Join(append(errs, m.irq.f.Close(), m.ack.f.Close())...)
}
