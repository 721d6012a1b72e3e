package blk

import (
	"bytes"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// gated is a backend whose operations can be held up and made to fail.
type gated struct {
	Backend
	flushes atomic.Int32

	mu      sync.Mutex
	gate    chan struct{} // nil is open
	waiting int
	err     error
}

func (g *gated) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate = make(chan struct{})
}

func (g *gated) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.gate)
	g.gate = nil
}

func (g *gated) pass() error {
	g.mu.Lock()
	gate := g.gate
	g.waiting++
	g.mu.Unlock()
	if gate != nil {
		<-gate
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	return g.err
}

// waitFor waits until n operations are held up.
func (g *gated) waitFor(t testing.TB, n int) {
	t.Helper()
	waitUntil(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.waiting == n
	})
}

func waitUntil(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("condition does not come true")
		}
	}
}

func (g *gated) ReadAtv(bufs [][]byte, off int64) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.Backend.ReadAtv(bufs, off)
}

func (g *gated) WriteAtv(bufs [][]byte, off int64) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.Backend.WriteAtv(bufs, off)
}

func (g *gated) Flush() error {
	g.flushes.Add(1)
	return g.pass()
}

func TestRequestValidation(t *testing.T) {
	const sectors = 2048
	disk := randomBytes(sectors * SectorSize)
	before := bytes.Clone(disk)
	g := newGuest(t, Config{Backend: NewMemory(disk)})
	manyRanges := bytes.Repeat(rangeBytes(0, 0, 0), maxRangeSegs+1)
	for _, tt := range []struct {
		name   string
		typ    uint32
		sector uint64
		out    []byte
		in     int
		status byte
	}{
		{"read past the end", typeIn, sectors, nil, 512, statusIOErr},
		{"read across the end", typeIn, sectors - 1, nil, 1024, statusIOErr},
		{"sector number overflows", typeIn, math.MaxUint64, nil, 512, statusIOErr},
		{"byte offset overflows", typeIn, 1 << 55, nil, 512, statusIOErr},
		{"read of half a sector", typeIn, 0, nil, 256, statusIOErr},
		{"write past the end", typeOut, sectors, make([]byte, 512), 0, statusIOErr},
		{"write of a part", typeOut, 0, make([]byte, 513), 0, statusIOErr},
		{"write overflows", typeOut, math.MaxUint64 - 1, make([]byte, 2048), 0, statusIOErr},
		{"unknown type", 99, 0, nil, 0, statusUnsupp},
		{"legacy SCSI", 2, 0, nil, 0, statusUnsupp},
		{"secure erase", 14, 0, rangeBytes(0, 1, 0), 0, statusUnsupp},
		{"discard without ranges", typeDiscard, 0, nil, 0, statusIOErr},
		{"discard with a part of a range", typeDiscard, 0, make([]byte, 15), 0, statusIOErr},
		{"discard with too many ranges", typeDiscard, 0, manyRanges, 0, statusIOErr},
		{"discard past the end", typeDiscard, 0, rangeBytes(sectors-1, 2, 0), 0, statusIOErr},
		{"discard overflows", typeDiscard, 0, rangeBytes(math.MaxUint64, 1, 0), 0, statusIOErr},
		{"discard of too much", typeDiscard, 0, rangeBytes(0, math.MaxUint32, 0), 0, statusIOErr},
		{"discard with unmap", typeDiscard, 0, rangeBytes(0, 1, 1), 0, statusUnsupp},
		{"zeroes with unknown flag", typeWriteZeroes, 0, rangeBytes(0, 1, 2), 0, statusUnsupp},
		{"zeroes, second range bad", typeWriteZeroes, 0, append(rangeBytes(0, 1, 0), rangeBytes(sectors, 1, 0)...), 0, statusIOErr},
		{"read of nothing", typeIn, 0, nil, 0, statusOK},
		{"read of nothing at the end", typeIn, sectors, nil, 0, statusOK},
		{"write of nothing", typeOut, 0, nil, 0, statusOK},
	} {
		out := [][]byte{reqHeader(tt.typ, tt.sector), tt.out}
		g.d.Queues[0].Add(out, []int{tt.in, 1})
		g.d.Queues[0].Kick()
		u := g.d.Queues[0].MustUsed()
		if tt.in == 0 {
			if u.Len != 1 || u.Data[0] != tt.status {
				t.Errorf("%s: length %d, status %v, want %d", tt.name, u.Len, u.Data, tt.status)
			}
		} else if u.Len != 1 {
			t.Errorf("%s: length %d, want 1", tt.name, u.Len)
		}
	}
	if !bytes.Equal(disk, before) {
		t.Error("a refused request changed the disk")
	}
	if n := g.dev.Stats().Errors; n != 0 {
		t.Errorf("%d errors are the backend's", n)
	}
	g.d.CheckHealthy()
}

// The status byte of a failed read is where the driver looks for it: behind the
// whole data buffer.
func TestStatusIsTheLastByte(t *testing.T) {
	g := newGuest(t, Config{Backend: NewMemory(make([]byte, 4096))})
	at := g.d.Alloc(16 + 513)
	q := g.d.Queues[0]
	q.Poke(at, reqHeader(typeIn, 1<<40))
	q.Poke(at+16+512, []byte{0xee})
	q.AddRaw(
		virtiotest.Desc{Addr: at, Len: 16, Flags: virtiotest.DescNext, Next: 1},
		virtiotest.Desc{Addr: at + 16, Len: 513, Flags: virtiotest.DescWrite},
	)
	q.MustUsed()
	b, err := g.d.Mem.Slice(at+16+512, 1)
	if err != nil || b[0] != statusIOErr {
		t.Errorf("status %v, %v", b, err)
	}
}

// Header, data and status may be cut anywhere, also into nothing
// (CVE-2016-6490: zero-length descriptors).
func TestDescriptorsOfAnyLength(t *testing.T) {
	for _, opt := range []virtiotest.Options{{}, {NoIndirect: true}} {
		g := newGuest(t, Config{Backend: NewMemory(make([]byte, 4096))}, opt)
		q := g.d.Queues[0]
		data := randomBytes(1024)
		whole := append(reqHeader(typeOut, 2), data...)
		for cut := range 21 {
			u := q.Do([][]byte{whole[:cut], nil, whole[cut:20], {}, whole[20:]}, 0, 1, 0)
			if u.Data[0] != statusOK {
				t.Fatalf("cut at %d: status %d", cut, u.Data[0])
			}
		}
		ones := make([][]byte, 16)
		for i, h := 0, reqHeader(typeIn, 2); i < 16; i++ {
			ones[i] = h[i : i+1]
		}
		u := q.Do(ones, 1, 0, 500, 3, 520, 0, 1)
		if u.Data[1024] != statusOK || !bytes.Equal(u.Data[:1024], data) {
			t.Errorf("read in pieces: status %d", u.Data[1024])
		}
		// The status may share a descriptor with the data.
		u = q.Do([][]byte{reqHeader(typeIn, 2)}, 1025)
		if u.Data[1024] != statusOK || !bytes.Equal(u.Data[:1024], data) {
			t.Errorf("read with joined status: %d", u.Data[1024])
		}
		// Chains without room for a status, or without a whole header.
		for _, n := range []int{0, 1, 15, 16} {
			if u := q.Do([][]byte{whole[:n]}); u.Len != 0 {
				t.Errorf("no status byte: length %d", u.Len)
			}
			if u := q.Do([][]byte{whole[:n]}, 1); u.Len != 1 || n < 16 && u.Data[0] != statusIOErr {
				t.Errorf("header of %d bytes: %+v", n, u)
			}
		}
		g.d.CheckHealthy()
	}
}

// CVE-2026-45782: a reset waits for the requests that use guest memory, and none
// of them touches the rings afterwards.
func TestResetWithRequestsInFlight(t *testing.T) {
	b := &gated{Backend: NewMemory(bytes.Repeat([]byte{9}, 1<<20))}
	g := newGuest(t, Config{Backend: b, Workers: 2})
	_, st := g.read(0, 512)
	wantStatus(t, "read", st, statusOK)
	b.close()
	g.dev.pace.slowUntil.Store(math.MaxInt64) // all go to the workers
	q := g.d.Queues[0]
	for i := range 10 {
		q.Add([][]byte{reqHeader(typeIn, uint64(i))}, []int{512, 1})
	}
	q.Kick()
	b.waitFor(t, 2)
	used := g.usedIndex()
	reset := make(chan struct{})
	go func() {
		g.d.Write32(0x70, 0)
		close(reset)
	}()
	select {
	case <-reset:
		t.Fatal("reset did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	b.open()
	<-reset
	if got := g.usedIndex(); got != used {
		t.Errorf("used index went from %d to %d during the reset", used, got)
	}
	g.d.Restart()
	g.dev.pace.slowUntil.Store(0)
	got, st := g.read(0, 512)
	if st != statusOK || got[0] != 9 {
		t.Errorf("after reset: status %d", st)
	}
}

func (g *guest) usedIndex() uint16 {
	v, err := g.d.Mem.LoadUint16(g.d.Queues[0].UsedAddr + 2)
	if err != nil {
		g.t.Error(err)
	}
	return v
}

// A slow request holds up neither those behind it nor other queues.
func TestSlowRequestDoesNotStall(t *testing.T) {
	b := &gated{Backend: NewMemory(make([]byte, 1<<20))}
	g := newGuest(t, Config{Backend: b, Workers: 4})
	g.dev.pace.slowUntil.Store(math.MaxInt64)
	b.close()
	q := g.d.Queues[0]
	slow := q.Add([][]byte{reqHeader(typeFlush, 0)}, []int{1})
	q.Kick()
	b.waitFor(t, 1)
	gate := b.gate
	b.mu.Lock()
	b.gate = nil // for those that come now
	b.mu.Unlock()
	for i := range 5 {
		if _, st := g.read(uint64(i), 512); st != statusOK {
			t.Fatalf("read %d: status %d", i, st)
		}
	}
	close(gate)
	if u := q.MustUsed(); u.Head != slow {
		t.Errorf("got %d, want the slow one", u.Head)
	}
}

// A full host disk: the guest sees an error, the owner hears of it, not too often.
func TestBackendErrors(t *testing.T) {
	b := &gated{Backend: NewMemory(make([]byte, 4096)), err: syscall.ENOSPC}
	var mu sync.Mutex
	var seen []error
	g := newGuest(t, Config{Backend: b, OnError: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, err)
	}})
	for range 20 {
		wantStatus(t, "write", g.out(typeOut, 2, make([]byte, 512)), statusIOErr)
	}
	wantStatus(t, "flush", g.out(typeFlush, 0), statusIOErr)
	mu.Lock()
	defer mu.Unlock()
	var op *OpError
	if len(seen) != 1 || !errors.As(seen[0], &op) || !errors.Is(op, syscall.ENOSPC) || op.Op != "write" || op.Off != 1024 || op.Len != 512 {
		t.Errorf("reported %v", seen)
	}
	if n := g.dev.Stats().Errors; n != 21 {
		t.Errorf("%d errors counted, want 21", n)
	}
	if g.dev.errorGate.skipped != 20 {
		t.Errorf("%d skipped, want 20", g.dev.errorGate.skipped)
	}
	g.d.CheckHealthy()
}

type panics struct{ Backend }

func (panics) ReadAtv([][]byte, int64) error { panic("broken backend") }
func (panics) Flush() error                  { panic("broken backend") }

// A panic ends the device, not the process, on the queue's goroutine and on a worker's.
func TestBackendPanic(t *testing.T) {
	for _, typ := range []uint32{typeIn, typeFlush} {
		g := newGuest(t, Config{Backend: panics{NewMemory(make([]byte, 4096))}})
		g.d.Queues[0].Add([][]byte{reqHeader(typ, 0)}, []int{1})
		g.d.Queues[0].Kick()
		waitUntil(t, func() bool { return len(g.d.Failures()) > 0 })
		g.d.Restart()
		wantStatus(t, "write after restart", g.out(typeOut, 0, make([]byte, 512)), statusOK)
	}
}
