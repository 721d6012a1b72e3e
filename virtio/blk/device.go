// Package blk is a virtio block device (Virtio 1.2, 5.2) over a Backend: a raw
// file, memory, or a reader.
//
// Each queue has the transport's goroutine. It serves by itself what needs no
// waiting, such as reads from the host's page cache, and a request beside which no
// other waits, as long as the backend is fast. The rest goes to a bounded set of
// workers, so that a slow request does not hold up the others.
// Data moves between the backend and guest memory without a buffer between, and
// no request allocates.
package blk

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio"
)

// Feature bits (5.2.3).
const (
	featureSizeMax     uint64 = 1 << 1
	featureSegMax      uint64 = 1 << 2
	featureReadOnly    uint64 = 1 << 5
	featureBlkSize     uint64 = 1 << 6
	featureFlush       uint64 = 1 << 9
	featureTopology    uint64 = 1 << 10
	featureConfigWCE   uint64 = 1 << 11
	featureMQ          uint64 = 1 << 12
	featureDiscard     uint64 = 1 << 13
	featureWriteZeroes uint64 = 1 << 14
)

// Device is the virtio device. Refresh and Stats may be called at any time.
type Device struct {
	cfg    Config
	nowait Nowaiter // the backend, if it can

	capacity  atomic.Uint64 // in sectors
	writeback atomic.Bool   // the driver flushes; otherwise each write does
	pace      pace

	mu       sync.Mutex
	sess     *virtio.Session
	restored bool // writeback came from a State
	resized  bool // the driver knows another capacity from before a restore

	queues  []*queue
	work    chan *request
	writes  chan *request // of backends whose writes exclude each other; or work
	workers sync.WaitGroup

	stats struct {
		readOps, readBytes, writeOps, writeBytes, flushOps atomic.Uint64
		discardOps, discardBytes, zeroOps, zeroBytes       atomic.Uint64
		errors, refused, inline                            atomic.Uint64
	}
	errorGate struct {
		sync.Mutex
		last    time.Time
		skipped uint64
	}
}

var _ virtio.KickHandler = (*Device)(nil)

// New returns a device for virtio.NewMMIO.
func New(cfg Config) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{cfg: cfg}
	d.pace.epoch = time.Now()
	d.nowait, _ = cfg.Backend.(Nowaiter)
	d.capacity.Store(sectors(cfg.Backend))
	d.writeback.Store(true)
	return d, nil
}

func sectors(b Backend) uint64 { return uint64(max(b.Size(), 0)) / SectorSize }

// ID returns 2, the block device.
func (d *Device) ID() uint32 { return virtio.IDBlock }

// Features are the offered bits.
func (d *Device) Features() uint64 {
	f := featureSizeMax | featureSegMax | featureBlkSize | featureTopology | featureFlush
	if d.cfg.Queues > 1 {
		f |= featureMQ
	}
	if d.cfg.ReadOnly {
		return f | featureReadOnly
	}
	return f | featureConfigWCE | featureDiscard | featureWriteZeroes
}

// QueueSizes is the same size for each queue.
func (d *Device) QueueSizes() []uint16 {
	s := make([]uint16, d.cfg.Queues)
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
		return errors.New("blk: activate: already active")
	}
	d.sess = s
	if !d.restored {
		// 5.2.5.1: without CONFIG_WCE the cache follows FLUSH; with it, the
		// driver sets the mode later.
		d.writeback.Store(s.Has(featureFlush))
	}
	if d.resized {
		s.ConfigChanged()
	}
	d.restored, d.resized = false, false
	d.queues = make([]*queue, len(s.Queues))
	total := 0
	for i, vq := range s.Queues {
		if vq == nil {
			continue
		}
		d.queues[i] = newQueue(d, s, i)
		total += vq.Size()
	}
	// Room for every request that can exist, so that handing one over never waits.
	d.work = make(chan *request, total)
	for range min(d.cfg.Workers, total) {
		d.startWorker(d.work)
	}
	d.writes = d.work
	if w, ok := d.cfg.Backend.(serialWriter); ok && w.SerialWrites() && !d.cfg.ReadOnly {
		d.writes = make(chan *request, total)
		d.startWorker(d.writes)
	}
	return nil
}

func (d *Device) startWorker(work chan *request) {
	d.workers.Go(func() { serveRequests(work) })
}

// HandleQueue serves one queue on the transport's goroutine for it.
func (d *Device) HandleQueue(q int) error {
	if q < 0 || q >= len(d.queues) || d.queues[q] == nil {
		return nil
	}
	return d.queues[q].serve(false)
}

// HandleKick serves one queue on the vCPU's goroutine: a short request takes less
// time than waking another goroutine for it.
func (d *Device) HandleKick(q int) error {
	if q < 0 || q >= len(d.queues) || d.queues[q] == nil {
		return nil
	}
	return d.queues[q].serve(true)
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

// Reset ends the session. Requests that a worker already runs are waited for,
// since they use guest memory; those still waiting for a worker are dropped.
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
	if d.writes != d.work {
		close(d.writes)
	}
	close(d.work)
	d.workers.Wait()
	d.sess, d.queues, d.work, d.writes = nil, nil, nil, nil
	d.writeback.Store(true)
}

// Refresh takes over a changed size of the backend and tells the driver. The
// new size holds for requests from then on. It returns the size in bytes.
func (d *Device) Refresh() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := sectors(d.cfg.Backend)
	if n == d.capacity.Load() {
		return int64(n) * SectorSize
	}
	if d.sess == nil {
		d.capacity.Store(n)
	} else {
		d.sess.UpdateConfig(func() { d.capacity.Store(n) })
	}
	return int64(n) * SectorSize
}

// Stats are counters since the device was made. Operations that failed count
// as errors only.
type Stats struct {
	ReadOps, ReadBytes       uint64
	WriteOps, WriteBytes     uint64
	FlushOps                 uint64
	DiscardOps, DiscardBytes uint64
	ZeroOps, ZeroBytes       uint64
	Errors                   uint64 // the backend failed
	Refused                  uint64 // the guest asked for what cannot be
	Inline                   uint64 // requests that needed no worker
}

// Stats returns the counters.
func (d *Device) Stats() Stats {
	s := &d.stats
	return Stats{
		ReadOps: s.readOps.Load(), ReadBytes: s.readBytes.Load(),
		WriteOps: s.writeOps.Load(), WriteBytes: s.writeBytes.Load(),
		FlushOps:   s.flushOps.Load(),
		DiscardOps: s.discardOps.Load(), DiscardBytes: s.discardBytes.Load(),
		ZeroOps: s.zeroOps.Load(), ZeroBytes: s.zeroBytes.Load(),
		Errors: s.errors.Load(), Refused: s.refused.Load(), Inline: s.inline.Load(),
	}
}

// report counts a failure of the backend and tells the owner, not too often.
func (d *Device) report(e *OpError) {
	d.stats.errors.Add(1)
	if d.cfg.OnError == nil {
		return
	}
	g := &d.errorGate
	g.Lock()
	now := time.Now()
	if !g.last.IsZero() && now.Sub(g.last) < time.Second {
		g.skipped++
		g.Unlock()
		return
	}
	e.Skipped, g.skipped, g.last = g.skipped, 0, now
	g.Unlock()
	d.cfg.OnError(e)
}
