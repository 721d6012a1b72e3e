package virtio_test

import (
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a device that copies what it reads to what it writes. Its second queue
// does the same, so that two queues can be seen to be independent.
type echo struct {
	mu       sync.Mutex
	s        *virtio.Session
	config   [8]byte
	resets   int
	activate error
	handle   func(q int) error // replaces the echo
	closed   int
}

func (e *echo) ID() uint32           { return 42 }
func (e *echo) Features() uint64     { return 1<<3 | 1<<50 }
func (e *echo) QueueSizes() []uint16 { return []uint16{16, 256} }

func (e *echo) ReadConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if off < uint64(len(e.config)) {
		copy(p, e.config[off:])
	}
}

func (e *echo) WriteConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if off < uint64(len(e.config)) {
		copy(e.config[off:], p)
	}
}

func (e *echo) Activate(s *virtio.Session) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.s = s
	return e.activate
}

func (e *echo) HandleQueue(q int) error {
	e.mu.Lock()
	s, handle := e.s, e.handle
	e.mu.Unlock()
	if handle != nil {
		return handle(q)
	}
	vq := s.Queue(q)
	var c virtq.Chain
	for {
		vq.DisableNotify()
		for {
			ok, err := vq.Next(&c)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			b := make([]byte, min(c.ReadableLen, c.WritableLen, 1<<16))
			c.Readable.CopyTo(b, 0)
			n := c.Writable.CopyFrom(b, 0)
			vq.Push(c.Head, uint32(n))
			s.Notify(q)
		}
		if !vq.EnableNotify() {
			return nil
		}
	}
}

func (e *echo) Reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.s = nil
	e.resets++
}

func (e *echo) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed++
	return nil
}

func (e *echo) resetCount() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.resets
}

func (e *echo) session() *virtio.Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.s
}

var errTest = errors.New("test error")
