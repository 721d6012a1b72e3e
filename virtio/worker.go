package virtio

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// one is what is added to an eventfd: the number 1 in host byte order. It is
// never written to.
var one = binary.NativeEndian.AppendUint64(nil, 1)

// add increments the counter. It never blocks: a counter at its maximum is as
// readable as one can be. An eventfd that is closed meanwhile is not an error.
func (e eventfd) add() { _, _ = e.f.Write(one) }

// worker runs HandleQueue for one queue. Its eventfd lives as long as the
// transport; its goroutine lives while the queue is to be served.
type worker struct {
	m     *MMIO
	queue int
	efd   eventfd
	buf   [8]byte

	kicked atomic.Bool // kick was called and not yet seen: no need to write again
	stop   atomic.Bool
	done   sync.WaitGroup

	mu      sync.Mutex // held while HandleQueue or HandleKick runs
	session *Session   // nil while the queue is not to be served; guarded by mu
}

func newWorker(m *MMIO, queue int) (*worker, error) {
	efd, err := newEventfd()
	if err != nil {
		return nil, err
	}
	return &worker{m: m, queue: queue, efd: efd}, nil
}

// kick makes the worker run HandleQueue.
func (w *worker) kick() {
	if !w.kicked.Swap(true) {
		w.efd.add()
	}
}

// start begins to serve the queue for session s; the first run needs no kick.
func (w *worker) start(s *Session) {
	w.stop.Store(false)
	s.Queues[w.queue].Halt(false)
	w.mu.Lock()
	w.session = s
	w.mu.Unlock()
	_ = w.efd.f.SetReadDeadline(time.Time{})
	w.done.Go(func() { w.run(s) })
}

// halt asks the worker to end soon; wait waits for it. Halting all workers of a
// device before waiting for one lets them end at the same time.
func (w *worker) halt(s *Session) {
	w.stop.Store(true)
	if q := s.Queues[w.queue]; q != nil {
		q.Halt(true)
	}
	// A read that is parked returns at once, and so does one that comes later.
	_ = w.efd.f.SetReadDeadline(time.Unix(1, 0))
}

func (w *worker) wait() {
	w.done.Wait()
	w.mu.Lock() // a HandleKick that runs ends soon
	w.session = nil
	w.mu.Unlock()
}

// kickHere serves the queue on the calling vCPU goroutine, if the device wants that
// and nobody serves it now; otherwise it kicks.
func (w *worker) kickHere() {
	d, ok := w.m.dev.(KickHandler)
	if !ok || !w.mu.TryLock() {
		w.kick()
		return
	}
	defer w.mu.Unlock()
	if w.session == nil || w.stop.Load() || w.m.needsReset.Load() {
		w.kick() // for when it is served again
		return
	}
	if err := guarded(d.HandleKick, w.queue); err != nil {
		w.m.fail(w.session, fmt.Sprintf("queue %d", w.queue), err)
	}
}

func (w *worker) run(s *Session) {
	// A truncated file behind guest memory raises SIGBUS; as a panic it ends
	// only this device.
	debug.SetPanicOnFault(true)
	for !w.stop.Load() {
		if !w.m.needsReset.Load() {
			if err := w.serve(); err != nil {
				w.m.fail(s, fmt.Sprintf("queue %d", w.queue), err)
			}
		}
		if w.stop.Load() {
			return
		}
		_, err := w.efd.f.Read(w.buf[:])
		// Cleared before serving, so that a kick during it is not lost. Swap, not
		// Store: it also makes visible what the kicker did before.
		w.kicked.Swap(false)
		if err != nil && !os.IsTimeout(err) {
			return // closed
		}
	}
}

// serve runs HandleQueue once.
func (w *worker) serve() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return guarded(w.m.dev.HandleQueue, w.queue)
}

// guarded turns a panic into an error.
func guarded(handle func(int) error, queue int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, v, debug.Stack())
		}
	}()
	return handle(queue)
}
