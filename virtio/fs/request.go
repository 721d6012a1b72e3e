package fs

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio/virtq"
)

const (
	// minRequest is the length, the operation and the number of struct fuse_in_header.
	minRequest = 16
	opField    = 4

	// inlineBytes: requests with more data always go to a worker.
	inlineBytes = 128 << 10
)

// Operations that may take long whatever their size (linux/fuse.h).
const (
	opFsync         = 20
	opFsyncDir      = 30
	opFallocate     = 43
	opCopyFileRange = 47
	opSyncFS        = 50
)

// request is one chain on its way. It is reused.
type request struct {
	q       *queue
	next    *request // free list
	chain   virtq.Chain
	op      uint32
	ended   bool   // parse already answered it
	written uint32 // for the used ring
}

// parse reads what the device needs to know of a request. One that is too short
// to say what it wants is given back unanswered.
func (r *request) parse() {
	r.ended, r.written = false, 0
	var h [minRequest]byte
	if r.chain.Readable.CopyTo(h[:], 0) < minRequest {
		r.q.d.stats.malformed.Add(1)
		r.ended = true
		return
	}
	r.op = binary.LittleEndian.Uint32(h[opField:])
}

// tryNow serves the request on the calling goroutine if it is of a kind that is
// quick, and reports whether it did.
func (r *request) tryNow() bool {
	if r.ended || r.q.idx == hiprio {
		r.run()
		return true
	}
	switch r.op {
	case opFsync, opFsyncDir, opFallocate, opCopyFileRange, opSyncFS:
		return false
	}
	p := &r.q.d.pace
	began, ok := p.begin(r.chain.ReadableLen + r.chain.WritableLen)
	if !ok {
		return false
	}
	r.run()
	p.end(began)
	return true
}

func (r *request) run() {
	if r.ended {
		return
	}
	n := r.q.d.cfg.Handler.Serve(r.chain.Readable, r.chain.Writable)
	// The handler is ours, but the used ring must not claim what was not there.
	r.written = uint32(min(uint64(max(n, 0)), r.chain.WritableLen, 1<<32-1))
}

// runGuarded turns a panic, for example a fault on guest memory whose backing
// file was truncated, into the device's failure.
func (r *request) runGuarded() {
	defer func() {
		if v := recover(); v != nil {
			r.written = 0
			r.q.sess.Fail(fmt.Errorf("fs: worker: panic: %v\n%s", v, debug.Stack()))
		}
	}()
	r.run()
}

// pace decides whether requests that are quick as a rule are served on the
// queue's goroutine: as long as they turn out quick.
type pace struct {
	epoch     time.Time
	slowUntil atomic.Int64 // nanoseconds since epoch
	slow      atomic.Int32 // slow ones in a row
}

const (
	paceSlow  = time.Millisecond      // a request that took longer was slow
	paceTries = 2                     // one may have been the scheduler's doing
	pacePause = 50 * time.Millisecond // for so long all go to the workers
)

func (p *pace) begin(bytes uint64) (t time.Duration, inline bool) {
	t = time.Since(p.epoch)
	return t, bytes <= inlineBytes && int64(t) >= p.slowUntil.Load()
}

func (p *pace) end(began time.Duration) {
	now := time.Since(p.epoch)
	if now-began <= paceSlow {
		p.slow.Store(0)
	} else if p.slow.Add(1) >= paceTries {
		p.slowUntil.Store(int64(now + pacePause))
	}
}
