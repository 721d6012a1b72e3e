package virtio

import (
	"sync"
	"sync/atomic"

	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// Session is the time between DRIVER_OK and the next reset, as a device sees it.
// Its methods may be called from any goroutine, also after the session ended:
// then they do nothing.
type Session struct {
	Mem      *guestmem.Memory
	Features uint64         // what was negotiated, the transport's bits included
	Queues   []*virtq.Queue // by index; nil where the driver set up none

	m     *MMIO
	ended atomic.Bool
	endMu sync.RWMutex // a failure is either before the end or does not count
}

// Has reports whether all the given feature bits were negotiated.
func (s *Session) Has(bits uint64) bool { return s.Features&bits == bits }

// Queue returns queue q, or nil when the driver did not set it up.
func (s *Session) Queue(q int) *virtq.Queue {
	if q < 0 || q >= len(s.Queues) {
		return nil
	}
	return s.Queues[q]
}

// Wake makes HandleQueue(q) run soon: work arrived from the host's side, or what
// was missing is there now. Wakes that come together are served by one run.
func (s *Session) Wake(q int) {
	if s.Queue(q) != nil && !s.ended.Load() {
		s.m.workers[q].kick()
	}
}

// Notify interrupts the driver if it wants to know of the buffers that were
// pushed to queue q since the last Notify. The caller must be the one who may
// use the queue.
func (s *Session) Notify(q int) {
	if vq := s.Queue(q); vq != nil && vq.ShouldNotify() && !s.ended.Load() {
		s.m.interrupt(intUsedBuffer)
	}
}

// ConfigChanged tells the driver that the configuration space changed.
func (s *Session) ConfigChanged() { s.UpdateConfig(nil) }

// UpdateConfig runs change, which may be nil, and tells the driver that the
// configuration space changed. No read of the configuration space happens in
// between, so a driver that compares generations never sees half of a change.
// The caller must not hold a lock that ReadConfig takes, nor be ReadConfig.
func (s *Session) UpdateConfig(change func()) {
	s.m.configMu.Lock()
	if change != nil {
		change()
	}
	s.m.generation.Add(1)
	s.m.configMu.Unlock()
	if !s.ended.Load() {
		s.m.interrupt(intConfigChange)
	}
}

// Fail ends the work of the device until the driver resets it: DEVICE_NEEDS_RESET
// and a configuration interrupt. Only the first failure of a session counts.
func (s *Session) Fail(err error) {
	s.endMu.RLock()
	defer s.endMu.RUnlock()
	if !s.ended.Load() {
		s.m.fail(s, "device", err)
	}
}

// end makes the session inert.
func (s *Session) end() {
	s.endMu.Lock()
	s.ended.Store(true)
	s.endMu.Unlock()
}
