package netstack

import (
	"sync"
	"time"
)

const defaultBurst = 100 * time.Millisecond

// bucket is a token bucket for bytes and one for packets. Its user guards it. A
// frame may overdraw it, so that one which is larger than the burst gets through
// too; what follows waits until the debt is paid.
type bucket struct {
	limited        bool
	last           time.Time
	bytes, packets tokens
}

type tokens struct{ rate, have, max float64 } // rate 0: no limit

func (b *bucket) init(r Rate, now time.Time) {
	burst := r.Burst
	if burst == 0 {
		burst = defaultBurst
	}
	set := func(t *tokens, rate int64) {
		t.rate = float64(rate)
		t.max = max(t.rate*burst.Seconds(), 1)
		t.have = t.max
	}
	set(&b.bytes, r.BytesPerSecond)
	set(&b.packets, r.PacketsPerSecond)
	b.limited, b.last = r.BytesPerSecond > 0 || r.PacketsPerSecond > 0, now
}

// take takes a frame's tokens and returns 0, or takes none and returns how long
// to wait.
func (b *bucket) take(now time.Time, bytes, packets int) time.Duration {
	if d := now.Sub(b.last).Seconds(); d > 0 {
		b.bytes.fill(d)
		b.packets.fill(d)
		b.last = now
	}
	wait := max(b.bytes.wait(), b.packets.wait())
	if wait == 0 {
		b.bytes.have -= float64(bytes)
		b.packets.have -= float64(packets)
	}
	return wait
}

// give returns the tokens of a frame that was not sent after all.
func (b *bucket) give(bytes, packets int) {
	b.bytes.have += float64(bytes)
	b.packets.have += float64(packets)
}

func (t *tokens) fill(seconds float64) {
	if t.rate > 0 {
		t.have = min(t.max, t.have+t.rate*seconds)
	}
}

func (t *tokens) wait() time.Duration {
	if t.rate == 0 || t.have > 0 {
		return 0
	}
	return max(time.Duration((1-t.have)/t.rate*float64(time.Second)), time.Millisecond)
}

// wakeTimer runs a function once after a while, however often it is started.
type wakeTimer struct {
	mu      sync.Mutex
	f       func()
	t       *time.Timer
	pending bool
	stopped bool
}

func (w *wakeTimer) init(f func()) { w.f = f }

func (w *wakeTimer) start(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pending || w.stopped {
		return
	}
	w.pending = true
	if w.t == nil {
		w.t = time.AfterFunc(d, w.fire)
	} else {
		w.t.Reset(d)
	}
}

func (w *wakeTimer) fire() {
	w.mu.Lock()
	w.pending = false
	stopped := w.stopped
	w.mu.Unlock()
	if !stopped {
		w.f()
	}
}

func (w *wakeTimer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.t != nil {
		w.t.Stop()
	}
}
