package oci

import (
	"sync"
	"time"
)

// progressEvery is how often a transfer or a conversion is reported.
const progressEvery = 50 * time.Millisecond

// progress passes events on, one at a time and not too many.
type progress struct {
	to  func(Event)
	ref string

	mu        sync.Mutex
	total     int64 // of EventConvert
	converted int64
	last      time.Time         // of EventConvert
	lastLayer map[int]time.Time // of EventLayer
	ended     bool
}

func newProgress(to func(Event), ref string) *progress {
	return &progress{to: to, ref: ref, lastLayer: map[int]time.Time{}}
}

func (p *progress) emit(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.emitLocked(e)
}

func (p *progress) emitLocked(e Event) {
	if p.to == nil || p.ended {
		return
	}
	e.Ref = p.ref
	p.ended = e.Kind == EventComplete
	p.to(e)
}

// start begins a transfer and conversion of so many bytes; of a second attempt as well.
func (p *progress) start(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.converted = total, 0
}

func (p *progress) layer(i int, l Layer, done int64, cached bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if done < l.Size && time.Since(p.lastLayer[i]) < progressEvery {
		return
	}
	p.lastLayer[i] = time.Now()
	p.emitLocked(Event{Kind: EventLayer, Digest: l.Digest, Layer: i, Done: done, Total: l.Size, Cached: cached})
}

func (p *progress) convert(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.converted = min(p.converted+n, p.total)
	if p.converted < p.total && time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	p.emitLocked(Event{Kind: EventConvert, Done: p.converted, Total: p.total})
}

func (p *progress) complete(img *Image) {
	p.emit(Event{Kind: EventComplete, Digest: img.Digest, Done: img.Size, Total: img.Size})
}

// cached reports an image that was there already.
func (p *progress) cached(img *Image) {
	p.emit(Event{Kind: EventResolved, Digest: img.Digest, Layers: img.Layers, Cached: true})
	p.complete(img)
}
