package balloon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const allFeatures = FeatureStatsVQ | FeatureDeflateOnOOM | FeatureReporting

// start makes a driver with real memory, filled with ones behind the first MiB,
// which the driver uses itself.
func start(t *testing.T, dev *Device, opts virtiotest.Options) (*virtiotest.Driver, []byte) {
	t.Helper()
	mem, err := guestmem.Allocate(guestmem.Range{GPA: virtiotest.MemBase, Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	all, err := mem.Slice(virtiotest.MemBase, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	opts.Mem = mem
	d := virtiotest.New(t, dev, opts)
	for i := 1 << 20; i < len(all); i++ {
		all[i] = 1
	}
	t.Cleanup(func() {
		if err := errors.Join(d.T.Close(), mem.Close()); err != nil {
			t.Error(err)
		}
	})
	return d, all
}

// pfns encodes page frame numbers.
func pfns(n ...uint32) []byte {
	var b []byte
	for _, v := range n {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// firstPFN is the first page that the driver does not use itself.
const firstPFN = (virtiotest.MemBase + 1<<20) / PageSize

// holes lists the pages (counted from firstPFN) that read as zero.
func holes(all []byte) (out []int) {
	for i := 1 << 20; i < len(all); i += PageSize {
		if all[i] == 0 {
			out = append(out, (i-1<<20)/PageSize)
		}
	}
	return out
}

func TestInflate(t *testing.T) {
	for _, tt := range []struct {
		name    string
		pfns    []byte
		want    []int
		count   uint64
		ignored uint64
	}{
		{"one", pfns(firstPFN), []int{0}, 1, 0},
		{"ascending", pfns(firstPFN+5, firstPFN+6, firstPFN+7), []int{5, 6, 7}, 3, 0},
		{"descending", pfns(firstPFN+7, firstPFN+6, firstPFN+5), []int{5, 6, 7}, 3, 0},
		{"mixed", pfns(firstPFN+9, firstPFN+2, firstPFN+3, firstPFN+1, firstPFN+9), []int{1, 2, 3, 9}, 5, 0},
		{"outside memory", pfns(0, firstPFN+1, 0xffffffff, 0xd0000), []int{1}, 1, 3},
		{"run over the end", pfns(firstPFN+1790, firstPFN+1791, firstPFN+1792, firstPFN+1793), []int{1790, 1791}, 2, 2},
		{"run from below", pfns(virtiotest.MemBase/PageSize-1, virtiotest.MemBase/PageSize-2, 3), nil, 0, 3},
		{"half a number", append(pfns(firstPFN), 1, 2, 3), []int{0}, 1, 0},
		{"empty", []byte{}, nil, 0, 0}, // CVE-2016-6490
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev := New(Config{})
			d, all := start(t, dev, virtiotest.Options{})
			if u := d.Queues[0].Do([][]byte{tt.pfns}); u.Len != 0 {
				t.Errorf("used length %d", u.Len)
			}
			if diff := cmp.Diff(tt.want, holes(all)); diff != "" {
				t.Errorf("pages (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(Counters{Inflated: tt.count, Ignored: tt.ignored}, dev.Counters()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			d.CheckHealthy()
		})
	}
}

// TestInflateLarge: numbers over several buffers, at odd places, and more of them
// than one request may have.
func TestInflateLarge(t *testing.T) {
	dev := New(Config{})
	d, all := start(t, dev, virtiotest.Options{})
	var b []byte
	for i := range uint32(1792) {
		b = append(b, pfns(firstPFN+i)...)
	}
	before, err := d.Mem.Resident()
	if err != nil {
		t.Fatal(err)
	}
	d.Queues[0].Do([][]byte{b[:5], b[5:4097], b[4097:]})
	if n := len(holes(all)); n != 1792 {
		t.Errorf("%d pages were discarded, want 1792", n)
	}
	after, err := d.Mem.Resident()
	if err != nil || before-after < 1792*PageSize {
		t.Errorf("%d bytes resident, %d before", after, before)
	}
	// Deflation needs nothing: the memory is there again when it is touched.
	d.Queues[1].Do([][]byte{b})
	all[2<<20] = 9
	if all[2<<20] != 9 {
		t.Error("deflated memory does not hold what is written")
	}

	d.Queues[0].Do([][]byte{bytes.Repeat(pfns(firstPFN), 100000)})
	if n := dev.Counters().Inflated; n != 1792+maxPFNs {
		t.Errorf("%d pages for a request of 100000, want %d", n-1792, maxPFNs)
	}
	d.CheckHealthy()
}

func TestPageRun(t *testing.T) {
	var r pageRun
	for i, tt := range []struct {
		pfn  uint64
		ok   bool
		want pageRun
	}{
		{0, true, pageRun{0, 1}},
		{1, true, pageRun{0, 2}},
		{3, false, pageRun{0, 2}},
		{0, false, pageRun{0, 2}},
		{1<<32 - 1, false, pageRun{0, 2}},
	} {
		if ok := r.extend(tt.pfn); ok != tt.ok || r != tt.want {
			t.Errorf("step %d: %t, %v, want %t, %v", i, ok, r, tt.ok, tt.want)
		}
	}
}

// TestQueueIndices: which queue is which depends on what was negotiated (5.5.2).
func TestQueueIndices(t *testing.T) {
	for _, tt := range []struct {
		refuse    uint64
		cfg       Config
		queues    int
		stats     int // index, or 0
		reporting int
	}{
		{0, Config{}, 4, 2, 3},
		{FeatureReporting, Config{}, 4, 2, 0},
		{FeatureStatsVQ, Config{}, 4, 0, 2},
		{allFeatures, Config{}, 4, 0, 0},
		{0, Config{NoStats: true}, 3, 0, 2},
		{0, Config{NoReporting: true}, 3, 2, 0},
		{0, Config{NoStats: true, NoReporting: true, NoDeflateOnOOM: true}, 2, 0, 0},
	} {
		t.Run(fmt.Sprintf("%+v refuse %#x", tt.cfg, tt.refuse), func(t *testing.T) {
			dev := New(tt.cfg)
			d, all := start(t, dev, virtiotest.Options{Refuse: tt.refuse})
			if len(d.Queues) != tt.queues {
				t.Fatalf("%d queues, want %d", len(d.Queues), tt.queues)
			}
			d.Queues[0].Do([][]byte{pfns(firstPFN)})
			if tt.stats != 0 {
				d.Queues[tt.stats].Add([][]byte{stat(StatFreeMemory, 7)}, nil)
				d.Queues[tt.stats].Kick()
			} else if _, err := dev.Stats(t.Context()); !errors.Is(err, ErrNotActive) {
				t.Errorf("statistics that were not negotiated: %v", err)
			}
			if tt.reporting != 0 {
				report(d, tt.reporting, firstPFN+4, 2)
				if diff := cmp.Diff([]int{0, 4, 5}, holes(all)); diff != "" {
					t.Errorf("pages (-want +got)\n%s", diff)
				}
			}
			d.CheckHealthy()
		})
	}
}

// report makes a chain whose buffers are the reported pages themselves.
func report(d *virtiotest.Driver, queue int, pfn, n uint64) {
	q := d.Queues[queue]
	q.AddRaw(virtiotest.Desc{Addr: pfn * PageSize, Len: uint32(n * PageSize), Flags: virtiotest.DescWrite})
	q.MustUsed()
}

func TestReporting(t *testing.T) {
	dev := New(Config{})
	d, all := start(t, dev, virtiotest.Options{})
	report(d, 3, firstPFN, 512)
	report(d, 3, firstPFN+1000, 1)
	// Not whole pages: nothing but whole pages goes.
	q := d.Queues[3]
	q.AddRaw(virtiotest.Desc{Addr: (firstPFN+600)*PageSize + 1, Len: 2 * PageSize, Flags: virtiotest.DescWrite})
	q.MustUsed()
	// A readable chain reports nothing.
	q.AddRaw(virtiotest.Desc{Addr: (firstPFN + 700) * PageSize, Len: PageSize})
	q.MustUsed()
	got := holes(all)
	if len(got) != 514 || got[511] != 511 || got[512] != 601 || got[513] != 1000 {
		t.Errorf("%d pages: %v", len(got), got[min(len(got), 510):])
	}
	if n := dev.Counters().Reported; n != 515*PageSize {
		t.Errorf("%d bytes reported", n)
	}
	d.CheckHealthy()
	// CVE-2024-3446: what is not memory cannot be reported, nor the ring broken
	// without consequence.
	q.AddRaw(virtiotest.Desc{Addr: 0xd0000000, Len: PageSize, Flags: virtiotest.DescWrite})
	d.WaitNeedsReset()
	d.CheckNoPanic()
	d.Restart()
}

func stat(tag uint16, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16(nil, tag), v)
}

func TestStats(t *testing.T) {
	dev := New(Config{})
	if _, err := dev.Stats(t.Context()); !errors.Is(err, ErrNotActive) {
		t.Errorf("without a driver: %v", err)
	}
	d, _ := start(t, dev, virtiotest.Options{})
	q := d.Queues[2]
	q.Add([][]byte{stat(StatFreeMemory, 1)}, nil) // as Linux does when it starts
	q.Kick()
	ctx, cancel := context.WithTimeout(t.Context(), virtiotest.Timeout)
	defer cancel()
	// The guest: answers each request with new figures.
	var wg sync.WaitGroup
	gctx, stop := context.WithCancel(ctx)
	wg.Go(func() {
		for i := uint64(0); ; i++ {
			if _, err := q.WaitUsed(gctx); err != nil {
				return
			}
			q.Add([][]byte{stat(StatFreeMemory, 1000+i), stat(StatTotalMemory, 1<<30), stat(99, 5), {1, 2, 3}}, nil)
			q.Kick()
		}
	})
	last := uint64(1)
	for range 20 {
		s, err := dev.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		free, ok := s.Get(StatFreeMemory)
		if !ok || free < last {
			t.Errorf("free memory %d, %t, was %d", free, ok, last)
		}
		last = free
		if s.Known != 0 && free >= 1000 {
			if total, ok := s.Get(StatTotalMemory); !ok || total != 1<<30 {
				t.Errorf("total memory %d, %t", total, ok)
			}
		}
		for _, tag := range []int{-1, StatSwapIn, 16, 99} {
			if _, ok := s.Get(tag); ok {
				t.Errorf("the guest gave no %d", tag)
			}
		}
	}
	if last < 1010 {
		t.Errorf("figures are not fresh: %d", last)
	}
	// Many at once share answers.
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if _, err := dev.Stats(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	stop()
	wg.Wait()
	d.CheckHealthy()
}

// TestStatsNoAnswer: a guest that does not answer holds nobody for ever.
func TestStatsNoAnswer(t *testing.T) {
	dev := New(Config{})
	d, _ := start(t, dev, virtiotest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	ask := func(ctx context.Context) { _, err := dev.Stats(ctx); errs <- err }
	go ask(ctx)
	go ask(t.Context())
	dev.mu.Lock()
	for len(dev.waiters) < 2 {
		dev.mu.Unlock()
		dev.mu.Lock()
	}
	dev.mu.Unlock()
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	d.Reset()
	if err := <-errs; !errors.Is(err, ErrReset) {
		t.Errorf("%v", err)
	}
	if len(dev.waiters) != 0 {
		t.Errorf("%d waiters are left", len(dev.waiters))
	}
	if _, err := dev.Stats(t.Context()); !errors.Is(err, ErrNotActive) {
		t.Errorf("%v", err)
	}
}

// TestStatsManyBuffers: a driver that adds more than the one buffer it should.
func TestStatsManyBuffers(t *testing.T) {
	dev := New(Config{})
	d, _ := start(t, dev, virtiotest.Options{})
	q := d.Queues[2]
	for i := range 50 {
		q.Add([][]byte{bytes.Repeat(stat(StatSwapIn, uint64(i)), 200)}, nil)
	}
	q.Kick()
	for range 49 {
		q.MustUsed()
	}
	dev.mu.Lock()
	held := dev.held
	dev.mu.Unlock()
	if held < 0 {
		t.Error("no buffer is held")
	}
	d.CheckHealthy()
}

func TestConfig(t *testing.T) {
	dev := New(Config{Target: 5})
	d, _ := start(t, dev, virtiotest.Options{})
	if dev.ID() != 5 || d.Features&allFeatures != allFeatures {
		t.Errorf("ID %d, features %#x", dev.ID(), d.Features)
	}
	if got := d.Config(0, 4); got != 5 {
		t.Errorf("num_pages %d", got)
	}
	n, gen := d.ConfigInterrupts(), d.Read32(virtio.RegConfigGeneration)
	dev.SetTarget(1000)
	d.WaitConfig(n)
	if got := d.Config(0, 8); got != 1000 || dev.Target() != 1000 {
		t.Errorf("num_pages %d", got)
	}
	if d.Read32(virtio.RegConfigGeneration) == gen {
		t.Error("the generation did not change")
	}
	d.SetConfig(4, 4, 77)
	if got := d.Config(4, 4); got != 77 || dev.Actual() != 77 {
		t.Errorf("actual %d", got)
	}
	// The driver cannot write anything else.
	for off := range uint64(20) {
		for _, n := range []int{1, 2, 4, 8} {
			if off != 4 || n != 4 {
				d.SetConfig(off, n, ^uint64(0))
			}
		}
	}
	if got := d.Config(0, 8); got != 77<<32|1000 || d.Config(8, 8) != 0 {
		t.Errorf("config %#x", got)
	}
	d.Restart()
	if dev.Actual() != 0 || dev.Target() != 1000 {
		t.Errorf("after reset: target %d, actual %d", dev.Target(), dev.Actual())
	}
	d.CheckHealthy()
}

func TestSaveRestore(t *testing.T) {
	dev := New(Config{Target: 10})
	d, _ := start(t, dev, virtiotest.Options{})
	d.SetConfig(4, 4, 8)
	q := d.Queues[2]
	q.Add([][]byte{stat(StatFreeMemory, 1)}, nil)
	q.Kick()
	ctx, cancel := context.WithTimeout(t.Context(), virtiotest.Timeout)
	defer cancel()
	// A guest that answers, for one request; then the device holds the buffer.
	gctx, stop := context.WithCancel(ctx)
	var guest sync.WaitGroup
	guest.Go(func() {
		for {
			if _, err := q.WaitUsed(gctx); err != nil {
				return
			}
			q.Add([][]byte{stat(StatFreeMemory, 1)}, nil)
			q.Kick()
		}
	})
	if _, err := dev.Stats(ctx); err != nil {
		t.Fatal(err)
	}
	stop()
	guest.Wait()
	d.T.Pause()
	if dev.held < 0 {
		t.Error("no buffer is held")
	}
	b, err := json.Marshal(dev.Save())
	if err != nil {
		t.Fatal(err)
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	dev2 := New(Config{})
	if err := dev2.Restore(st); err != nil {
		t.Fatal(err)
	}
	d.Migrate(dev2)
	if dev2.Target() != 10 || dev2.Actual() != 8 {
		t.Errorf("target %d, actual %d", dev2.Target(), dev2.Actual())
	}
	got := make(chan Stats, 1)
	go func() {
		s, err := dev2.Stats(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- s
	}()
	// The new device asks with the buffer that the old one held.
	if _, err := q.WaitUsed(ctx); err != nil {
		t.Fatal(err)
	}
	q.Add([][]byte{stat(StatFreeMemory, 2)}, nil)
	q.Kick()
	if s := <-got; s.Values[StatFreeMemory] != 2 {
		t.Errorf("%+v", s)
	}
	d.CheckHealthy()
}

// TestRestoreHostile: CVE-2013-4150 and its kin.
func TestRestoreHostile(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg Config
		st  State
	}{
		"version":  {Config{}, State{Version: 0, StatsHead: -1}},
		"head":     {Config{}, State{Version: 1, StatsHead: queueSize}},
		"negative": {Config{}, State{Version: 1, StatsHead: -2}},
		"no stats": {Config{NoStats: true}, State{Version: 1, StatsHead: 1}},
	} {
		if err := New(tt.cfg).Restore(tt.st); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, opts := range map[string]virtiotest.Options{
		"not in flight":  {},
		"no queue":       {Unused: []int{2}},
		"not negotiated": {Refuse: FeatureStatsVQ},
	} {
		src := virtiotest.New(t, New(Config{}), opts)
		src.T.Pause()
		ts, err := src.T.Save()
		if err != nil {
			t.Fatal(err)
		}
		dev := New(Config{})
		if err := dev.Restore(State{Version: 1, StatsHead: 7}); err != nil {
			t.Fatal(err)
		}
		d := virtiotest.Attach(t, dev, virtiotest.Options{Mem: src.Mem})
		d.T.Pause()
		if err := d.T.Restore(ts); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllocs(t *testing.T) {
	dev := New(Config{})
	d, _ := start(t, dev, virtiotest.Options{})
	d.T.Pause()
	q := d.Queues[0]
	q.Poke(virtiotest.MemBase+1<<20, pfns(firstPFN+3, 0, firstPFN+4, 0xffffffff))
	q.PokeDesc(0, virtiotest.Desc{Addr: virtiotest.MemBase + 1<<20, Len: 16})
	dev.session.Load().Queue(0).Halt(false) // the device's side alone, on this goroutine
	if n := testing.AllocsPerRun(100, func() {
		q.PokeAvail(0)
		if err := dev.HandleQueue(0); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}
