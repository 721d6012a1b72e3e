// Package balloon is the traditional virtio memory balloon (Virtio 1.2, 5.5). It
// gives memory that the guest does not need back to the host, in two ways: the
// host sets a target and the guest gives pages up (inflation), and the guest
// reports free memory on its own (free page reporting). It also asks the guest
// for statistics about its memory.
//
// The guest may lie about everything, to its own harm only: discarding a page
// makes it read as zero to this guest and to nobody else.
package balloon

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// PageSize is the unit of targets and page frame numbers, in bytes, whatever the
// guest's or the host's page size is (5.5.6).
const PageSize = 4096

// Feature bits (5.5.3).
const (
	FeatureStatsVQ      uint64 = 1 << 1 // VIRTIO_BALLOON_F_STATS_VQ
	FeatureDeflateOnOOM uint64 = 1 << 2 // VIRTIO_BALLOON_F_DEFLATE_ON_OOM
	FeatureReporting    uint64 = 1 << 5 // VIRTIO_BALLOON_F_PAGE_REPORTING
)

const (
	queueSize = 128 // Linux reports up to 32 free ranges, inflates 256 pages at a time

	// maxPFNs bounds the work for one request. Linux sends 256; what comes
	// behind the bound is not discarded, which costs the host memory and the
	// guest nothing.
	maxPFNs = 16384
)

// Errors of this package.
var (
	// ErrNotActive says that no driver is there, or that it did not agree to
	// the feature.
	ErrNotActive = errors.New("balloon: the guest's driver does not offer this now")
	// ErrReset says that the driver went away meanwhile.
	ErrReset = errors.New("balloon: the guest's driver was reset")
)

// Config describes the device. The zero value offers everything.
type Config struct {
	Target         uint32 // initial target, in pages of PageSize
	NoStats        bool   // do not offer statistics
	NoReporting    bool   // do not offer free page reporting
	NoDeflateOnOOM bool   // the guest must not take pages back when it is out of memory
}

// what a queue is for; which index it has depends on the negotiated features.
type role uint8

const (
	inflate role = iota
	deflate
	stats
	reporting
)

// Device is a balloon device.
type Device struct {
	features uint64
	target   atomic.Uint32
	actual   atomic.Uint32
	inflated atomic.Uint64 // pages given back by inflation, in total
	reported atomic.Uint64 // bytes given back by reporting, in total
	ignored  atomic.Uint64 // page frame numbers that were no memory

	session atomic.Pointer[virtio.Session]
	roles   []role // by queue index; fixed while a session lives

	chains [4]virtq.Chain // by role, each used by its queue's goroutine
	pfns   [4096]byte     // a piece of an inflate request

	mu      sync.Mutex
	held    int // head of the statistics buffer that we hold, or -1
	waiters map[chan statsResult]struct{}
}

var _ virtio.Device = (*Device)(nil)

// New makes a device.
func New(cfg Config) *Device {
	d := &Device{
		features: FeatureStatsVQ | FeatureDeflateOnOOM | FeatureReporting,
		held:     -1,
		waiters:  make(map[chan statsResult]struct{}),
	}
	for _, o := range []struct {
		off bool
		bit uint64
	}{
		{cfg.NoStats, FeatureStatsVQ},
		{cfg.NoReporting, FeatureReporting},
		{cfg.NoDeflateOnOOM, FeatureDeflateOnOOM},
	} {
		if o.off {
			d.features &^= o.bit
		}
	}
	d.target.Store(cfg.Target)
	return d
}

// ID returns the device ID of balloons.
func (d *Device) ID() uint32 { return virtio.IDBalloon }

// Features returns the offered feature bits.
func (d *Device) Features() uint64 { return d.features }

// QueueSizes returns inflateq, deflateq, and the optional queues.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, len(roles(d.features)))
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// roles says what each queue is for (5.5.2): the optional queues exist only when
// their feature was negotiated, and those that exist are numbered without gaps.
func roles(features uint64) []role {
	r := []role{inflate, deflate}
	if features&FeatureStatsVQ != 0 {
		r = append(r, stats)
	}
	if features&FeatureReporting != 0 {
		r = append(r, reporting)
	}
	return r
}

// Activate begins a session.
func (d *Device) Activate(s *virtio.Session) error {
	d.roles = roles(s.Features)
	if err := d.resume(s); err != nil {
		return err
	}
	d.session.Store(s)
	return nil
}

// Reset ends the session. Pages that were discarded are simply memory again.
func (d *Device) Reset() {
	d.session.Store(nil)
	d.actual.Store(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = -1
	d.answer(statsResult{err: ErrReset})
}

// HandleQueue serves a queue.
func (d *Device) HandleQueue(q int) error {
	s := d.session.Load()
	if q >= len(d.roles) {
		return nil // exists, but means nothing with these features
	}
	r := d.roles[q]
	c := &d.chains[r]
	vq := s.Queue(q)
	vq.DisableNotify()
	for {
		ok, err := vq.Next(c)
		if err != nil {
			return err
		}
		if !ok {
			if vq.EnableNotify() {
				continue
			}
			break
		}
		switch r {
		case stats:
			d.takeStats(s, q, c)
			continue // the buffer is held
		case inflate:
			d.inflate(s, c)
		case reporting:
			d.report(s, c)
		case deflate:
			// The guest uses the pages again; they are there when touched.
		}
		vq.Push(c.Head, 0)
		s.Notify(q)
	}
	if r == stats {
		d.askStats(s, q)
	}
	return nil
}

// inflate discards the pages whose numbers are in the chain. Numbers that are not
// guest memory are ignored: the specification gives the device no way to object,
// and they harm nobody.
func (d *Device) inflate(s *virtio.Session, c *virtq.Chain) {
	buf := d.pfns[:]
	var run pageRun
	n := min(c.ReadableLen, maxPFNs*4) &^ 3
	for off := uint64(0); off < n; {
		b := buf[:min(n-off, uint64(len(buf)))]
		c.Readable.CopyTo(b, off)
		off += uint64(len(b))
		for ; len(b) > 0; b = b[4:] {
			pfn := uint64(binary.LittleEndian.Uint32(b))
			if !run.extend(pfn) {
				d.discard(s, run)
				run = pageRun{pfn, pfn + 1}
			}
		}
	}
	d.discard(s, run)
}

// pageRun is a run of page frame numbers, end excluded: drivers give pages up in
// ascending or descending order, and one call discards them all.
type pageRun struct{ from, to uint64 }

// extend adds pfn if it is a neighbour of the run.
func (r *pageRun) extend(pfn uint64) bool {
	switch {
	case r.from == r.to:
		r.from, r.to = pfn, pfn+1
	case pfn == r.to:
		r.to++
	case pfn+1 == r.from:
		r.from--
	default:
		return false
	}
	return true
}

// discard gives a run of pages back. A run that is not memory as a whole is tried
// page by page, so that one bad number spoils nothing else.
func (d *Device) discard(s *virtio.Session, r pageRun) {
	if r.from == r.to {
		return
	}
	at, n := r.from*PageSize, (r.to-r.from)*PageSize
	if s.Mem.Contains(at, n) {
		d.discardRange(s, at, n)
		return
	}
	for ; n > 0; at, n = at+PageSize, n-PageSize {
		if s.Mem.Contains(at, PageSize) {
			d.discardRange(s, at, PageSize)
		} else {
			d.ignored.Add(1)
		}
	}
}

// discardRange discards pages that are known to be memory.
func (d *Device) discardRange(s *virtio.Session, gpa, n uint64) {
	if s.Mem.Discard(gpa, n) == nil {
		d.inflated.Add(n / PageSize)
	}
}

// report discards the free memory that the guest reports: the chain's buffers are
// themselves that memory (5.5.6.7).
func (d *Device) report(s *virtio.Session, c *virtq.Chain) {
	for _, b := range c.Writable {
		gpa, ok := s.Mem.Address(b)
		if ok && s.Mem.Discard(gpa, uint64(len(b))) == nil {
			d.reported.Add(uint64(len(b)))
		}
	}
}

// SetTarget asks the guest to give up so many pages of PageSize. The guest does so
// in its own time, or not; Actual tells.
func (d *Device) SetTarget(pages uint32) {
	d.target.Store(pages)
	if s := d.session.Load(); s != nil {
		s.ConfigChanged()
	}
}

// Target is what SetTarget asked for.
func (d *Device) Target() uint32 { return d.target.Load() }

// Actual is how many pages the guest says it gave up.
func (d *Device) Actual() uint32 { return d.actual.Load() }

// Counters are totals since the device was made.
type Counters struct {
	Inflated uint64 // pages discarded by inflation
	Reported uint64 // bytes discarded by free page reporting
	Ignored  uint64 // page frame numbers that were not guest memory
}

// Counters returns what the balloon did so far.
func (d *Device) Counters() Counters {
	return Counters{d.inflated.Load(), d.reported.Load(), d.ignored.Load()}
}
