// Package rng is the virtio entropy device (Virtio 1.2, 5.4): the guest asks for
// random bytes, and gets the host's.
package rng

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

const (
	// DefaultMaxRequest is how many bytes one request gets at most. Drivers ask
	// for tens of bytes; one that asks for gigabytes must not keep the host busy.
	DefaultMaxRequest = 64 << 10

	queueSize = 8    // requests in flight; Linux has one
	chunkSize = 4096 // how much is generated at a time
)

// ErrConfig says that a Config is out of range.
var ErrConfig = errors.New("rng: invalid configuration")

// Config describes the device. The zero value works.
type Config struct {
	// Source is where the bytes come from: crypto/rand by default. It must not
	// block, and it must not keep the slice it is given. An error of it ends the
	// device until its next reset.
	Source io.Reader
	// MaxRequest bounds the bytes given to one request, DefaultMaxRequest if 0.
	// A request for more is answered with fewer, as the specification allows.
	MaxRequest int
	// BytesPerSecond bounds the rate, with a burst of one second's worth; 0 is
	// no bound. Requests over it wait.
	BytesPerSecond int
}

// Device is a virtio entropy device.
type Device struct {
	source io.Reader
	max    int
	buf    [chunkSize]byte
	chain  virtq.Chain

	mu      sync.Mutex
	session *virtio.Session
	limit   limiter
	timer   *time.Timer // wakes the queue when the rate allows more
}

var _ virtio.Device = (*Device)(nil)

// New makes a device.
func New(cfg Config) (*Device, error) {
	if cfg.MaxRequest < 0 || cfg.BytesPerSecond < 0 {
		return nil, fmt.Errorf("%w: MaxRequest and BytesPerSecond must not be negative", ErrConfig)
	}
	d := &Device{source: cfg.Source, max: cfg.MaxRequest}
	if d.source == nil {
		d.source = rand.Reader
	}
	if d.max == 0 {
		d.max = DefaultMaxRequest
	}
	d.limit = newLimiter(cfg.BytesPerSecond, time.Now())
	return d, nil
}

// ID returns the device ID of entropy devices.
func (d *Device) ID() uint32 { return virtio.IDEntropy }

// Features returns 0: the device has none.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes returns the size of the only queue, requestq.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// Activate begins a session.
func (d *Device) Activate(s *virtio.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = s
	return nil
}

// Reset ends the session.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = nil
	if d.timer != nil {
		d.timer.Stop()
	}
}

// HandleQueue answers all requests.
func (d *Device) HandleQueue(q int) error {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	vq := s.Queue(q)
	vq.DisableNotify()
	for {
		ok, err := vq.Next(&d.chain)
		if err != nil {
			return err
		}
		if !ok {
			if vq.EnableNotify() {
				continue
			}
			return nil
		}
		want := int(min(d.chain.WritableLen, uint64(d.max)))
		n := d.allow(s, want)
		if n == 0 && want > 0 {
			// Over the rate: the request stays where it is until the timer.
			vq.Undo(&d.chain)
			return nil
		}
		if err := d.fill(d.chain.Writable, n); err != nil {
			return err
		}
		vq.Push(d.chain.Head, uint32(n))
		s.Notify(q)
	}
}

// allow takes n bytes from the rate limit, or fewer. When it returns 0 a timer
// wakes the queue.
func (d *Device) allow(s *virtio.Session, n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	got, wait := d.limit.take(time.Now(), n)
	if got == 0 && wait > 0 {
		if d.timer != nil {
			d.timer.Stop()
		}
		d.timer = time.AfterFunc(wait, func() { s.Wake(0) })
	}
	return got
}

// fill puts n random bytes into the buffers, by way of our own memory: a source
// may use its output as state, which a guest must not be able to change.
func (d *Device) fill(out virtq.Buffers, n int) error {
	for off := 0; off < n; {
		p := d.buf[:min(n-off, len(d.buf))]
		if _, err := io.ReadFull(d.source, p); err != nil {
			return fmt.Errorf("rng: read source: %w", err)
		}
		out.CopyFrom(p, uint64(off))
		off += len(p)
	}
	// What the guest got is nobody else's.
	clear(d.buf[:min(n, len(d.buf))])
	return nil
}
