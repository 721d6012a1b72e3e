package rng

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDevice(t testing.TB, cfg Config) *Device {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// counter is a source whose bytes can be recognized.
type counter struct {
	mu    sync.Mutex
	next  byte
	total int
	most  int // largest single read
}

func (c *counter) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range p {
		p[i] = c.next
		c.next++
	}
	c.total += len(p)
	c.most = max(c.most, len(p))
	return len(p), nil
}

func TestDevice(t *testing.T) {
	dev := newDevice(t, Config{})
	d := virtiotest.New(t, dev)
	if dev.ID() != 4 || dev.Features() != 0 || d.Config(0, 8) != 0 {
		t.Errorf("ID %d, features %#x, config %#x", dev.ID(), dev.Features(), d.Config(0, 8))
	}
	a := d.Queues[0].Do(nil, 64)
	b := d.Queues[0].Do(nil, 64)
	if len(a.Data) != 64 || len(b.Data) != 64 || bytes.Equal(a.Data, b.Data) || bytes.Equal(a.Data, make([]byte, 64)) {
		t.Errorf("not random: %x and %x", a.Data, b.Data)
	}
	d.CheckHealthy()
}

func TestRequests(t *testing.T) {
	want := make([]byte, 100000)
	for i := range want {
		want[i] = byte(i)
	}
	for _, tt := range []struct {
		name     string
		max      int
		readable [][]byte
		writable []int
		want     int
	}{
		{"one byte", 0, nil, []int{1}, 1},
		{"several buffers", 0, nil, []int{1, 10, 5000, 3}, 5014},
		{"as much as allowed", 0, nil, []int{DefaultMaxRequest}, DefaultMaxRequest},
		{"more than allowed", 0, nil, []int{DefaultMaxRequest, 100}, DefaultMaxRequest},
		{"own bound", 10, nil, []int{7, 7}, 10},
		// 5.4.6.1: the driver must not; the device does not care.
		{"readable part", 0, [][]byte{{1, 2, 3}}, []int{4}, 4},
		{"nothing to write to", 0, [][]byte{{1, 2, 3}}, nil, 0},
		{"empty", 0, nil, []int{0}, 0}, // CVE-2016-6490
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := virtiotest.New(t, newDevice(t, Config{Source: &counter{}, MaxRequest: tt.max}))
			u := d.Queues[0].Do(tt.readable, tt.writable...)
			if int(u.Len) != tt.want || !bytes.Equal(u.Data, want[:tt.want]) {
				t.Errorf("%d bytes, want %d", u.Len, tt.want)
			}
			d.CheckHealthy()
		})
	}
}

// TestGigabytes is the request of facts that asks for more than any host should
// generate: the same buffers, over and over in one chain.
func TestGigabytes(t *testing.T) {
	mem, err := guestmem.Allocate(guestmem.Range{GPA: virtiotest.MemBase, Size: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	src := &counter{}
	d := virtiotest.New(t, newDevice(t, Config{Source: src}), virtiotest.Options{Mem: mem})
	q := d.Queues[0]
	var descs []virtiotest.Desc
	for i := range 3 {
		descs = append(descs, virtiotest.Desc{
			Addr: virtiotest.MemBase + 1<<20, Len: 1<<30 - 1<<20,
			Flags: virtiotest.DescWrite | virtiotest.DescNext, Next: uint16(i + 1),
		})
	}
	descs[2].Flags = virtiotest.DescWrite
	q.AddRaw(descs...)
	if u := q.MustUsed(); u.Len != DefaultMaxRequest {
		t.Errorf("%d bytes", u.Len)
	}
	src.mu.Lock()
	if src.total != DefaultMaxRequest || src.most > chunkSize {
		t.Errorf("%d bytes were generated, %d at a time", src.total, src.most)
	}
	src.mu.Unlock()
	if err := errors.Join(d.T.Close(), mem.Close()); err != nil {
		t.Error(err)
	}
}

func TestRate(t *testing.T) {
	const rate = 20000
	d := virtiotest.New(t, newDevice(t, Config{BytesPerSecond: rate}))
	q := d.Queues[0]
	start := time.Now()
	if u := q.Do(nil, 2*rate); u.Len != rate {
		t.Errorf("burst of %d, want %d", u.Len, rate)
	}
	got := 0
	for got < rate/10 {
		got += int(q.Do(nil, 1000).Len)
	}
	if took := time.Since(start); took < 90*time.Millisecond {
		t.Errorf("%d bytes over the burst took %v", got, took)
	}
	// A reset while a request waits for its turn.
	q.Add(nil, []int{1000})
	q.Kick()
	d.Restart()
	d.Queues[0].Do(nil, 10)
	d.CheckHealthy()
}

func TestLimiter(t *testing.T) {
	t0 := time.Unix(1000, 0)
	l := newLimiter(1000, t0)
	for _, tt := range []struct {
		at   time.Duration
		n    int
		want int
		wait time.Duration
	}{
		{0, 400, 400, 0},
		{0, 1000, 600, 0},
		{0, 10, 0, 10 * time.Millisecond},
		{0, 1 << 30, 0, 64 * time.Millisecond},
		{50 * time.Millisecond, 0, 0, 0},
		{50 * time.Millisecond, 100, 50, 0},
		{time.Hour, 5000, 1000, 0},
		{time.Minute, 10, 0, 10 * time.Millisecond}, // a clock that went back
	} {
		got, wait := l.take(t0.Add(tt.at), tt.n)
		if got != tt.want || (wait-tt.wait).Abs() > time.Millisecond {
			t.Errorf("take %d at %v: %d, %v, want %d, %v", tt.n, tt.at, got, wait, tt.want, tt.wait)
		}
	}
	l = newLimiter(0, t0)
	if n, wait := l.take(t0, math.MaxInt); n != math.MaxInt || wait != 0 {
		t.Errorf("no limit: %d, %v", n, wait)
	}
	l = newLimiter(1, t0)
	if n, _ := l.take(t0, 5); n != 1 {
		t.Errorf("%d", n)
	}
	if n, wait := l.take(t0, 5); n != 0 || wait > time.Second {
		t.Errorf("%d, %v", n, wait)
	}
}

func TestSourceFails(t *testing.T) {
	boom := errors.New("no entropy")
	d := virtiotest.New(t, newDevice(t, Config{Source: io.MultiReader(&failing{boom})}))
	d.Queues[0].Add(nil, []int{16})
	d.Queues[0].Kick()
	if err := d.WaitNeedsReset(); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// TestHostileRings: a broken ring ends this device's session only.
func TestHostileRings(t *testing.T) {
	for name, f := range map[string]func(q *virtiotest.Queue){
		"loop (CVE-2016-6490)": func(q *virtiotest.Queue) {
			q.AddRaw(virtiotest.Desc{Addr: virtiotest.MemBase, Len: 8, Flags: virtiotest.DescWrite | virtiotest.DescNext})
		},
		"registers (CVE-2024-3446)": func(q *virtiotest.Queue) {
			q.AddRaw(virtiotest.Desc{Addr: 0xd0000000, Len: 8, Flags: virtiotest.DescWrite})
		},
		"torn index (CVE-2020-13759)": func(q *virtiotest.Queue) { q.PokeAvailIndex(0xff00); q.ForceKick() },
	} {
		t.Run(name, func(t *testing.T) {
			d := virtiotest.New(t, newDevice(t, Config{}))
			f(d.Queues[0])
			d.WaitNeedsReset()
			d.CheckNoPanic()
			d.Restart()
			d.Queues[0].Do(nil, 8)
		})
	}
}

func TestConfigRefused(t *testing.T) {
	for _, cfg := range []Config{{MaxRequest: -1}, {BytesPerSecond: -1}} {
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestSaveRestore(t *testing.T) {
	dev := newDevice(t, Config{Source: &counter{}})
	d := virtiotest.New(t, dev)
	d.Queues[0].Do(nil, 10)
	d.T.Pause()
	d.Queues[0].Add(nil, []int{10})
	d.Queues[0].Kick()
	b, err := json.Marshal(dev.Save())
	if err != nil {
		t.Fatal(err)
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	dev2 := newDevice(t, Config{})
	if err := dev2.Restore(st); err != nil {
		t.Fatal(err)
	}
	d.Migrate(dev2)
	if u := d.Queues[0].MustUsed(); u.Len != 10 {
		t.Errorf("%d bytes", u.Len)
	}
	d.CheckHealthy()
	if err := dev2.Restore(State{Version: 99}); !errors.Is(err, ErrState) { // CVE-2013-4150
		t.Errorf("%v", err)
	}
}

func TestAllocs(t *testing.T) {
	dev := newDevice(t, Config{Source: &counter{}})
	d := virtiotest.New(t, dev)
	d.T.Pause()
	q := d.Queues[0]
	q.PokeDesc(0, virtiotest.Desc{Addr: virtiotest.MemBase + 1<<20, Len: 64, Flags: virtiotest.DescWrite})
	// The device's side alone, on this goroutine: one that is paused has none.
	s := dev.session
	s.Queue(0).Halt(false)
	if n := testing.AllocsPerRun(100, func() {
		q.PokeAvail(0)
		if err := dev.HandleQueue(0); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a request", n)
	}
}
