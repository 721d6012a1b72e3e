package blk

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

const (
	// notifyEvery: of a run of requests served at once, so many share an interrupt.
	notifyEvery = 16
	// serveBudget bounds one HandleQueue call, so that a guest that never
	// stops cannot hold up a pause.
	serveBudget = 1024
	// kickBudget bounds one HandleKick call, which keeps a CPU of the guest.
	kickBudget = 16
)

// queue is one request queue. mu guards the ring and what is below it; workers
// take it to complete a request.
type queue struct {
	d    *Device
	sess *virtio.Session
	idx  int
	dead atomic.Bool // the session ends: touch nothing more

	mu       sync.Mutex
	idle     sync.Cond // inFlight became 0
	q        *virtq.Queue
	free     *request
	inFlight int // handed to workers
}

func newQueue(d *Device, s *virtio.Session, idx int) *queue {
	q := &queue{d: d, sess: s, idx: idx, q: s.Queues[idx]}
	q.idle.L = &q.mu
	return q
}

// get returns an unused request. There are never more than the ring has entries.
func (q *queue) get() *request {
	r := q.free
	if r == nil {
		return &request{q: q, d: q.d}
	}
	q.free, r.next = r.next, nil
	return r
}

func (q *queue) put(r *request) { r.next, q.free = q.free, r }

// serve takes what the driver made available, up to a bound if it runs on a vCPU.
func (q *queue) serve(onCPU bool) error {
	var done *request
	budget := serveBudget
	if onCPU {
		budget = kickBudget
	}
	for n := 0; ; n++ {
		r, err := q.step(done, n, budget)
		if r == nil {
			return err
		}
		r.onCPU = onCPU
		r.parse()
		if done = r; !r.tryNow() {
			q.handOver(r)
			done = nil
		}
	}
}

// step gives done back to the driver, if there is one, and takes the next
// request. It returns nil when serve has to end.
func (q *queue) step(done *request, n, budget int) (*request, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n == 0 {
		q.q.DisableNotify()
	}
	if done != nil {
		q.d.stats.inline.Add(1)
		q.q.Push(done.chain.Head, done.written)
		q.put(done)
		if n%notifyEvery == 0 {
			q.sess.Notify(q.idx)
		}
	}
	if n >= budget {
		q.sess.Notify(q.idx)
		q.sess.Wake(q.idx)
		return nil, nil
	}
	r := q.get()
	for {
		ok, err := q.q.Next(&r.chain)
		if ok {
			r.alone = !q.q.Pending()
			return r, nil
		}
		q.sess.Notify(q.idx)
		if err != nil || !q.q.EnableNotify() {
			q.put(r)
			return nil, err
		}
		q.q.DisableNotify()
	}
}

// handOver gives the request to a worker.
func (q *queue) handOver(r *request) {
	q.mu.Lock()
	q.inFlight++
	q.mu.Unlock()
	if r.typ == typeOut {
		q.d.writes <- r
	} else {
		q.d.work <- r
	}
}

// complete ends a request that a worker ran.
func (q *queue) complete(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.dead.Load() {
		q.q.Push(r.chain.Head, r.written)
		q.sess.Notify(q.idx)
	}
	q.put(r)
	if q.inFlight--; q.inFlight == 0 {
		q.idle.Broadcast()
	}
}

func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.inFlight > 0 {
		q.idle.Wait()
	}
}

// serveRequests is a worker.
func serveRequests(work <-chan *request) {
	debug.SetPanicOnFault(true)
	for r := range work {
		if !r.q.dead.Load() {
			r.runGuarded()
		}
		r.q.complete(r)
	}
}

// runGuarded turns a panic, for example a fault on guest memory whose backing
// file was truncated, into the device's failure.
func (r *request) runGuarded() {
	defer func() {
		if v := recover(); v != nil {
			r.finish(statusIOErr, 0)
			r.q.sess.Fail(fmt.Errorf("blk: worker: panic: %v\n%s", v, debug.Stack()))
		}
	}()
	r.run()
}

// pace decides whether operations that may have to wait for a disk are done on
// the queue's goroutine: as long as they turn out fast, which saves the way to a
// worker and back.
type pace struct {
	epoch     time.Time
	slowUntil atomic.Int64 // nanoseconds since epoch
	slow      atomic.Int32 // slow ones in a row
}

const (
	paceSlow   = time.Millisecond      // an operation longer than this was slow
	pacePerMiB = 4 * time.Millisecond  // and so much for each MiB of it
	paceTries  = 2                     // one may have been the scheduler's doing
	pacePause  = 50 * time.Millisecond // for so long others go to the workers
	paceBytes  = 256 << 10             // longer ones hold others up
	paceMost   = 4 << 20               // longer ones hold a pause up
	paceOnCPU  = 64 << 10              // longer ones hold a vCPU up that could go on
)

// oneCPU: a vCPU could not go on while others work for it.
var oneCPU = runtime.NumCPU() == 1

// begin reports whether to go ahead with an operation.
func (p *pace) begin(r *request) (t time.Duration, inline bool) {
	most := int64(paceBytes)
	switch {
	case r.onCPU && !oneCPU:
		most = paceOnCPU
	case r.alone:
		most = paceMost
	}
	t = time.Since(p.epoch)
	return t, r.length <= most && int64(t) >= p.slowUntil.Load()
}

func (p *pace) end(began time.Duration, bytes int64) {
	now := time.Since(p.epoch)
	if now-began <= paceSlow+pacePerMiB*time.Duration(bytes)>>20 {
		p.slow.Store(0)
	} else if p.slow.Add(1) >= paceTries {
		p.slowUntil.Store(int64(now + pacePause))
	}
}
