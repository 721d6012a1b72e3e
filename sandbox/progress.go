package sandbox

import (
	"context"
	"iter"
	"sync"

	"github.com/hutchvm/hutch/rootfs/oci"
)

// PullEvent is one step of the pull or load of an image.
type PullEvent = oci.Event

// PullEventKind tells what a PullEvent is about.
type PullEventKind = oci.EventKind

// The kinds of PullEvent, in the order in which they come. Of an image that is
// here already there are only PullResolving, PullResolved and PullComplete.
const (
	PullResolving     = oci.EventResolving     // the name is being looked up
	PullResolved      = oci.EventResolved      // the image is known, and how much is to be fetched
	PullLayer         = oci.EventLayer         // a layer is being fetched
	PullLayerVerified = oci.EventLayerVerified // a layer is complete and matches its digest
	PullConvert       = oci.EventConvert       // layers are being converted
	PullComplete      = oci.EventComplete      // the image can be used
)

// PullSession is a Create under way.
type PullSession struct {
	mu      sync.Mutex
	changed sync.Cond
	events  []PullEvent // not taken yet
	done    bool
	sandbox *Sandbox
	err     error
}

// CreateWithProgress is [Create] that tells how the pull of the image goes. It
// returns at once; cancelling ctx ends it. The caller must call
// [PullSession.Sandbox], and close the sandbox if there is one.
func CreateWithProgress(ctx context.Context, name string, opts ...Option) *PullSession {
	return withProgress(opts, func(opts []Option) (*Sandbox, error) { return Create(ctx, name, opts...) })
}

// StartWithProgress is [Start] with the progress of a pull, which happens only
// when the image has been removed meanwhile.
func StartWithProgress(ctx context.Context, name string, opts ...Option) *PullSession {
	return withProgress(opts, func(opts []Option) (*Sandbox, error) { return Start(ctx, name, opts...) })
}

func withProgress(opts []Option, create func([]Option) (*Sandbox, error)) *PullSession {
	p := &PullSession{}
	p.changed.L = &p.mu
	opts = append(opts[:len(opts):len(opts)], func(c *config) { c.Progress = p.add })
	go func() {
		sb, err := create(opts)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sandbox, p.err, p.done = sb, err, true
		p.changed.Broadcast()
	}()
	return p
}

// add queues an event. A newer one about the same thing takes the place of one
// that nobody has taken yet, so the queue is bounded by the number of layers.
func (p *PullSession) add(e PullEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.events {
		if q := &p.events[i]; q.Kind == e.Kind && q.Layer == e.Layer {
			*q = e
			return
		}
	}
	p.events = append(p.events, e)
	p.changed.Broadcast()
}

// Events are the events as they come, until the image is there or the Create
// has failed. Leaving the loop does not end the Create, and nobody needs to
// take the events. Of several events about the progress of one layer only the
// newest is kept.
func (p *PullSession) Events() iter.Seq[PullEvent] {
	return func(yield func(PullEvent) bool) {
		for {
			p.mu.Lock()
			for len(p.events) == 0 && !p.done {
				p.changed.Wait()
			}
			if len(p.events) == 0 {
				p.mu.Unlock()
				return
			}
			e := p.events[0]
			p.events = p.events[1:]
			p.mu.Unlock()
			if !yield(e) || e.Kind == PullComplete {
				return
			}
		}
	}
}

// Sandbox waits for the end of the Create and returns what it returned.
func (p *PullSession) Sandbox() (*Sandbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.done {
		p.changed.Wait()
	}
	return p.sandbox, p.err
}
