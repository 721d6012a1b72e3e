package balloon

import (
	"context"
	"encoding/binary"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// Tags of the statistics (5.5.6.3).
const (
	StatSwapIn        = 0  // bytes swapped in
	StatSwapOut       = 1  // bytes swapped out
	StatMajorFaults   = 2  // page faults that needed a disk
	StatMinorFaults   = 3  // other page faults
	StatFreeMemory    = 4  // bytes not used for anything
	StatTotalMemory   = 5  // bytes the guest's kernel knows of
	StatAvailable     = 6  // bytes that programs could have without swapping
	StatDiskCaches    = 7  // bytes of caches that could be dropped
	StatHugetlbAllocs = 8  // huge pages allocated
	StatHugetlbFails  = 9  // huge pages not allocated
	StatOOMKills      = 10 // later versions of Linux: processes killed
	StatAllocStalls   = 11
	StatAsyncScans    = 12
	StatDirectScans   = 13
	StatAsyncReclaim  = 14
	StatDirectReclaim = 15

	numStats = 16
)

const (
	statSize = 10 // le16 tag, le64 value, packed

	// maxStats bounds what is read of a buffer; drivers send each tag once.
	maxStats = 64
)

// Stats are the guest's own figures about its memory, indexed by the Stat
// constants. They are the guest's claims.
type Stats struct {
	Values [numStats]uint64
	Known  uint32 // bit i says that the guest gave Values[i]
}

// Get returns the value with the given tag and whether the guest gave it.
func (s Stats) Get(tag int) (uint64, bool) {
	if tag < 0 || tag >= numStats || s.Known>>tag&1 == 0 {
		return 0, false
	}
	return s.Values[tag], true
}

type statsResult struct {
	stats Stats
	err   error
}

// Stats asks the guest for fresh figures and waits for them. Calls that come
// together share one answer. The error is ErrNotActive, ErrReset or the
// context's.
func (d *Device) Stats(ctx context.Context) (Stats, error) {
	s := d.session.Load()
	if s == nil || !s.Has(FeatureStatsVQ) || s.Queue(statsQueue) == nil {
		return Stats{}, ErrNotActive
	}
	ch := make(chan statsResult, 1)
	d.mu.Lock()
	d.waiters[ch] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.waiters, ch)
		d.mu.Unlock()
	}()
	// A reset that happened in between found no waiter to tell.
	if d.session.Load() != s {
		return Stats{}, ErrReset
	}
	s.Wake(statsQueue)
	select {
	case r := <-ch:
		return r.stats, r.err
	case <-ctx.Done():
		return Stats{}, context.Cause(ctx)
	}
}

// statsQueue is statsq's index whenever it exists.
const statsQueue = 2

// answer gives all waiters a result. The caller holds d.mu.
func (d *Device) answer(r statsResult) {
	for ch := range d.waiters {
		ch <- r // has room for one, and gets one only
		delete(d.waiters, ch)
	}
}

// takeStats reads a statistics buffer, which the device then holds until it wants
// new figures: giving it back is how it asks for them (5.5.6.3).
func (d *Device) takeStats(s *virtio.Session, q int, c *virtq.Chain) {
	var buf [statSize * maxStats]byte
	b := buf[:c.Readable.CopyTo(buf[:], 0)]
	var st Stats
	for ; len(b) >= statSize; b = b[statSize:] {
		if tag := binary.LittleEndian.Uint16(b); tag < numStats {
			st.Values[tag] = binary.LittleEndian.Uint64(b[2:])
			st.Known |= 1 << tag
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held >= 0 {
		// A driver has only one buffer. One that adds more gets them back.
		s.Queue(q).Push(uint16(d.held), 0)
		s.Notify(q)
	}
	d.held = int(c.Head)
	d.answer(statsResult{stats: st})
}

// askStats gives the buffer back if somebody waits for figures.
func (d *Device) askStats(s *virtio.Session, q int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held < 0 || len(d.waiters) == 0 {
		return
	}
	s.Queue(q).Push(uint16(d.held), 0)
	d.held = -1
	s.Notify(q)
}
