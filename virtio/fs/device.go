// Package fs is a virtio file system device (Virtio 1.2, 5.11): a transport for
// FUSE requests, which a Handler answers. The device knows how requests travel;
// what they mean is the handler's business.
//
// Request buffers are guest memory, so a handler that passes them to preadv and
// pwritev moves file data with no copy. Requests that are quick as a rule are
// served by the transport's goroutine of the queue, the others by a bounded set
// of workers, so that one that waits for a disk does not hold up the rest.
package fs

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio"
)

// hiprio is the queue for requests that must not wait behind others: FORGET,
// BATCH_FORGET and INTERRUPT (5.11.2). The request queues follow it.
const hiprio = 0

// Handler answers FUSE requests.
type Handler interface {
	// Serve answers the request in in and returns how many bytes of the reply
	// it wrote to out; 0 where there is no reply. Both are guest memory, in
	// pieces of any length and number, out possibly empty: they may change at
	// any time, must not be kept, and the slices that list them may be
	// changed. It is called from several goroutines at once. A pause and a
	// reset wait for it, so it must not wait for another party.
	Serve(in, out [][]byte) int
	// Reset ends the session: what the guest looked up and opened is
	// forgotten. No Serve is running. It must be ready for a new session, and
	// may be called when there was none.
	Reset()
}

// Device is the virtio device. Stats may be called at any time.
type Device struct {
	cfg  Config
	pace pace

	mu      sync.Mutex
	sess    *virtio.Session
	queues  []*queue
	work    chan *request
	workers sync.WaitGroup

	stats struct{ requests, inline, malformed atomic.Uint64 }
}

var _ virtio.Device = (*Device)(nil)

// New returns a device for virtio.NewMMIO. The caller keeps the handler, and
// closes it when the transport was closed.
func New(cfg Config) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{cfg: cfg}
	d.pace.epoch = time.Now()
	return d, nil
}

// ID returns 26, the file system device.
func (d *Device) ID() uint32 { return virtio.IDFS }

// Features are none: notifications would let the handler talk first, which
// nothing needs.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes is the same size for the high priority queue and each request queue.
func (d *Device) QueueSizes() []uint16 {
	s := make([]uint16, 1+d.cfg.Queues)
	for i := range s {
		s[i] = d.cfg.QueueSize
	}
	return s
}

// Activate starts the workers.
func (d *Device) Activate(s *virtio.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess != nil {
		return errors.New("fs: activate: already active")
	}
	d.sess = s
	d.queues = make([]*queue, len(s.Queues))
	total := 0
	for i, vq := range s.Queues {
		if vq == nil {
			continue
		}
		d.queues[i] = newQueue(d, s, i)
		if i != hiprio {
			total += vq.Size()
		}
	}
	// Room for every request that can exist, so that handing one over never waits.
	d.work = make(chan *request, total)
	for range min(d.cfg.Workers, total) {
		work := d.work
		d.workers.Go(func() { serveRequests(work) })
	}
	return nil
}

// HandleQueue serves one queue on the transport's goroutine for it.
func (d *Device) HandleQueue(q int) error {
	if q < 0 || q >= len(d.queues) || d.queues[q] == nil {
		return nil
	}
	return d.queues[q].serve()
}

// Quiesce waits until the workers have finished every request that was taken.
// The transport is paused, so no new ones come.
func (d *Device) Quiesce() {
	d.mu.Lock()
	queues := d.queues
	d.mu.Unlock()
	for _, q := range queues {
		if q != nil {
			q.drain()
		}
	}
}

// Reset ends the session, the handler's too. Requests that a worker already runs
// are waited for, since they use guest memory; those still waiting for a worker
// are dropped.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess == nil {
		return
	}
	for _, q := range d.queues {
		if q != nil {
			q.dead.Store(true)
		}
	}
	close(d.work)
	d.workers.Wait()
	d.sess, d.queues, d.work = nil, nil, nil
	d.cfg.Handler.Reset()
}

// Stats are counters since the device was made.
type Stats struct {
	Requests  uint64 // all that the guest sent
	Inline    uint64 // of them, those that needed no worker
	Malformed uint64 // of them, those too short to be answered
}

// Stats returns the counters.
func (d *Device) Stats() Stats {
	return Stats{
		Requests:  d.stats.requests.Load(),
		Inline:    d.stats.inline.Load(),
		Malformed: d.stats.malformed.Load(),
	}
}
