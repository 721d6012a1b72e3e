package blk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest is the driver of one disk.
type guest struct {
	t   testing.TB
	dev *Device
	d   *virtiotest.Driver
}

func newGuest(t testing.TB, cfg Config, opts ...virtiotest.Options) *guest {
	t.Helper()
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &guest{t: t, dev: dev, d: virtiotest.New(t, dev, opts...)}
}

func reqHeader(typ uint32, sector uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, typ)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint64(b, sector)
}

func rangeBytes(sector uint64, n, flags uint32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, sector)
	b = binary.LittleEndian.AppendUint32(b, n)
	return binary.LittleEndian.AppendUint32(b, flags)
}

// read returns data and status.
func (g *guest) read(sector uint64, n int) ([]byte, byte) {
	g.t.Helper()
	return g.in(reqHeader(typeIn, sector), n)
}

func (g *guest) in(h []byte, n int) ([]byte, byte) {
	g.t.Helper()
	g.d.Queues[0].Add([][]byte{h}, []int{n, 1})
	g.d.Queues[0].Kick()
	u := g.d.Queues[0].MustUsed()
	if int(u.Len) != n+1 {
		return nil, statusIOErr // an error writes the status only; see out
	}
	return u.Data[:n], u.Data[n]
}

// out sends a request with data for the device and returns its status.
func (g *guest) out(typ uint32, sector uint64, data ...[]byte) byte {
	g.t.Helper()
	u := g.d.Queues[0].Do(append([][]byte{reqHeader(typ, sector)}, data...), 1)
	if u.Len != 1 {
		g.t.Fatalf("used length %d, want 1", u.Len)
	}
	return u.Data[0]
}

func wantStatus(t testing.TB, what string, got, want byte) {
	t.Helper()
	if got != want {
		t.Errorf("%s: status %d, want %d", what, got, want)
	}
}

func tempFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func newFile(t testing.TB, f *os.File) *File {
	t.Helper()
	b, err := NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// backends are the writable ones, each of 1 MiB.
func backends(t *testing.T) map[string]Backend {
	return map[string]Backend{
		"file":    newFile(t, tempFile(t, 1<<20)),
		"memory":  NewMemory(make([]byte, 1<<20)),
		"workers": &gated{Backend: NewMemory(make([]byte, 1<<20))}, // no Nowaiter
	}
}

func TestReadWrite(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, Config{Backend: b})
			data := randomBytes(8192)
			wantStatus(t, "write", g.out(typeOut, 3, data[:512], data[512:5000], data[5000:]), statusOK)
			wantStatus(t, "flush", g.out(typeFlush, 0), statusOK)
			got, st := g.read(3, len(data))
			wantStatus(t, "read", st, statusOK)
			if !bytes.Equal(got, data) {
				t.Error("read differs from what was written")
			}
			got, st = g.read(2, 512)
			if st != statusOK || !bytes.Equal(got, make([]byte, 512)) {
				t.Errorf("sector before: status %d", st)
			}
			want := Stats{ReadOps: 2, ReadBytes: 8192 + 512, WriteOps: 1, WriteBytes: 8192, FlushOps: 1}
			st2 := g.dev.Stats()
			st2.Inline = 0
			if diff := cmp.Diff(want, st2); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
			g.d.CheckHealthy()
		})
	}
}

func TestDiscardAndWriteZeroes(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, Config{Backend: b})
			ones := bytes.Repeat([]byte{1}, 64<<10)
			wantStatus(t, "write", g.out(typeOut, 0, ones), statusOK)
			wantStatus(t, "write zeroes", g.out(typeWriteZeroes, 0, rangeBytes(8, 8, 0), rangeBytes(24, 8, 1)), statusOK)
			wantStatus(t, "discard", g.out(typeDiscard, 0, rangeBytes(64, 64, 0)), statusOK)
			wantStatus(t, "empty discard", g.out(typeDiscard, 0, rangeBytes(64, 0, 0)), statusOK)
			got, st := g.read(0, 64*512)
			wantStatus(t, "read", st, statusOK)
			want := bytes.Clone(ones[:64*512])
			clear(want[8*512 : 16*512])
			clear(want[24*512 : 32*512])
			if !bytes.Equal(got, want) {
				t.Error("wrong bytes are zero")
			}
			if s := g.dev.Stats(); s.ZeroOps != 1 || s.ZeroBytes != 16*512 || s.DiscardOps != 2 || s.DiscardBytes != 64*512 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func TestGetID(t *testing.T) {
	for serial, want := range map[string]string{
		"":                     "",
		"root":                 "root",
		"01234567890123456789": "01234567890123456789",
	} {
		g := newGuest(t, Config{Backend: NewMemory(nil), Serial: serial})
		got, st := g.in(reqHeader(typeGetID, 0), serialLen)
		wantStatus(t, "get id", st, statusOK)
		if s := string(bytes.TrimRight(got, "\x00")); s != want {
			t.Errorf("id %q, want %q", s, want)
		}
		// A shorter buffer gets a part.
		if got, _ = g.in(reqHeader(typeGetID, 0), 2); string(got) != (want + "\x00\x00")[:2] {
			t.Errorf("part of the id: %q", got)
		}
	}
}

func TestConfigSpace(t *testing.T) {
	b := NewMemory(make([]byte, 10<<10))
	g := newGuest(t, Config{Backend: b, Queues: 4, QueueSize: 64})
	for _, tt := range []struct {
		name string
		off  uint64
		n    int
		want uint64
	}{
		{"capacity", 0, 8, 20},
		{"capacity, low half", 0, 4, 20},
		{"seg_max", 12, 4, 62},
		{"blk_size", 20, 4, 512},
		{"physical_block_exp", 24, 1, 3},
		{"writeback", 32, 1, 1},
		{"num_queues", 34, 2, 4},
		{"max_discard_seg", 40, 4, maxRangeSegs},
		{"may_unmap", 56, 1, 1},
		{"past the end", 60, 8, 0},
	} {
		if got := g.d.Config(tt.off, tt.n); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	g.d.SetConfig(0, 8, 1<<40)
	if got := g.d.Config(0, 8); got != 20 {
		t.Errorf("capacity %d after a write", got)
	}
	if got := g.dev.QueueSizes(); !cmp.Equal(got, []uint16{64, 64, 64, 64}) {
		t.Errorf("queue sizes %v", got)
	}
	for _, c := range []Config{
		{},
		{Backend: b, Serial: "012345678901234567890"},
		{Backend: b, Queues: -1},
		{Backend: b, Queues: 1000},
		{Backend: b, QueueSize: 100},
		{Backend: b, QueueSize: 2},
		{Backend: b, Workers: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

// Without FLUSH, or with the cache switched off, a write is durable when it returns.
func TestWriteThrough(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opt    virtiotest.Options
		off    bool
		writes int
	}{
		{"write back", virtiotest.Options{}, false, 0},
		{"switched off", virtiotest.Options{}, true, 1},
		{"driver cannot flush", virtiotest.Options{Refuse: featureFlush | featureConfigWCE}, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &gated{Backend: NewMemory(make([]byte, 4096))}
			g := newGuest(t, Config{Backend: b}, tt.opt)
			if tt.off {
				g.d.SetConfig(configWCEField, 1, 0)
			}
			wantStatus(t, "write", g.out(typeOut, 0, make([]byte, 512)), statusOK)
			if n := int(b.flushes.Load()); n != tt.writes {
				t.Errorf("%d flushes, want %d", n, tt.writes)
			}
		})
	}
}

func TestReadOnly(t *testing.T) {
	content := randomBytes(3 * 512)
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, cfg := range map[string]Config{
		"asked for": {Backend: NewMemory(bytes.Clone(content)), ReadOnly: true},
		"file":      {Backend: newFile(t, f)},
		"reader":    {Backend: NewReaderAt(bytes.NewReader(content), int64(len(content)))},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, cfg)
			if g.d.Features&featureReadOnly == 0 || g.d.Features&(featureDiscard|featureWriteZeroes) != 0 {
				t.Errorf("features %#x", g.d.Features)
			}
			wantStatus(t, "write", g.out(typeOut, 0, make([]byte, 512)), statusIOErr)
			wantStatus(t, "discard", g.out(typeDiscard, 0, rangeBytes(0, 1, 0)), statusIOErr)
			wantStatus(t, "write zeroes", g.out(typeWriteZeroes, 0, rangeBytes(0, 1, 0)), statusIOErr)
			wantStatus(t, "flush", g.out(typeFlush, 0), statusOK)
			got, st := g.read(0, len(content))
			if st != statusOK || !bytes.Equal(got, content) {
				t.Errorf("read: status %d", st)
			}
			if n := g.dev.Stats().Errors; n != 0 {
				t.Errorf("%d errors of the backend", n)
			}
		})
	}
}

// Files and readers whose size is not a multiple of the sector.
func TestOddSizes(t *testing.T) {
	content := randomBytes(1000)
	f := tempFile(t, 0)
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1024)
	copy(want, content)
	for name, b := range map[string]Backend{
		"file":   newFile(t, f),
		"reader": NewReaderAt(bytes.NewReader(content), 1000),
	} {
		g := newGuest(t, Config{Backend: b})
		if got := g.d.Config(0, 8); got != 2 {
			t.Errorf("%s: %d sectors, want 2", name, got)
		}
		got, st := g.read(0, 1024)
		if st != statusOK || !bytes.Equal(got, want) {
			t.Errorf("%s: status %d or content", name, st)
		}
	}
	g := newGuest(t, Config{Backend: newFile(t, f)})
	wantStatus(t, "write of the last sector", g.out(typeOut, 1, make([]byte, 512)), statusOK)
	if fi, _ := f.Stat(); fi.Size() != 1024 {
		t.Errorf("file has %d bytes", fi.Size())
	}
}

// A file that shrank under us gives errors, not zeroes.
func TestTruncatedFile(t *testing.T) {
	f := tempFile(t, 64<<10)
	var seen []error
	g := newGuest(t, Config{Backend: newFile(t, f), OnError: func(err error) { seen = append(seen, err) }})
	f.Truncate(4096)
	_, st := g.read(0, 4096)
	wantStatus(t, "read of what is left", st, statusOK)
	_, st = g.read(0, 8192)
	wantStatus(t, "read beyond", st, statusIOErr)
	if len(seen) != 1 || !errors.Is(seen[0], io.ErrUnexpectedEOF) {
		t.Errorf("reported %v", seen)
	}
}

func TestRefresh(t *testing.T) {
	f := tempFile(t, 4096)
	g := newGuest(t, Config{Backend: newFile(t, f)})
	_, st := g.read(8, 512)
	wantStatus(t, "read beyond the end", st, statusIOErr)
	n := g.d.ConfigInterrupts()
	if g.dev.Refresh() != 4096 {
		t.Error("size changed by itself")
	}
	f.Truncate(8192)
	if got := g.dev.Refresh(); got != 8192 {
		t.Errorf("size %d", got)
	}
	g.d.WaitConfig(n)
	if got := g.d.Config(0, 8); got != 16 {
		t.Errorf("capacity %d, want 16", got)
	}
	_, st = g.read(8, 512)
	wantStatus(t, "read of the new part", st, statusOK)
}

func TestSaveRestore(t *testing.T) {
	disk := make([]byte, 1<<20)
	gate := &gated{Backend: NewMemory(disk)}
	g := newGuest(t, Config{Backend: gate})
	g.d.SetConfig(configWCEField, 1, 0)
	wantStatus(t, "write", g.out(typeOut, 0, bytes.Repeat([]byte{7}, 512)), statusOK)

	// One request is with a worker when the machine is paused; the state has its
	// result.
	gate.close()
	g.d.Queues[0].Add([][]byte{reqHeader(typeIn, 0)}, []int{512, 1})
	g.d.Queues[0].Kick()
	gate.waitFor(t, 1)
	time.AfterFunc(10*time.Millisecond, gate.open)
	g.d.T.Pause()
	b, err := json.Marshal(g.dev.Save())
	if err != nil {
		t.Fatal(err)
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]func(*State){
		"version": func(s *State) { s.Version = 9 },
		"mode":    func(s *State) { s.ReadOnly = true },
	} {
		s := st
		bad(&s)
		dev, _ := New(Config{Backend: NewMemory(disk)})
		if err := dev.Restore(s); err == nil {
			t.Errorf("bad %s is accepted", name)
		}
	}
	dev, err := New(Config{Backend: NewMemory(disk)})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Restore(st); err != nil {
		t.Fatal(err)
	}
	g.d.Migrate(dev)
	if u := g.d.Queues[0].MustUsed(); u.Data[512] != statusOK || u.Data[0] != 7 {
		t.Errorf("request in flight: %v", u.Data[510:])
	}
	if got := g.d.Config(configWCEField, 1); got != 0 {
		t.Error("cache mode is lost")
	}
	got, s := g.read(0, 512)
	if s != statusOK || got[0] != 7 {
		t.Errorf("read after restore: %d", s)
	}
	g.d.CheckHealthy()
}

// TestRestoreOnAnotherDisk: the driver learns of the size that it does not know.
func TestRestoreOnAnotherDisk(t *testing.T) {
	g := newGuest(t, Config{Backend: NewMemory(make([]byte, 1<<20))})
	g.d.T.Pause()
	dev, err := New(Config{Backend: NewMemory(make([]byte, 8<<10))})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Restore(g.dev.Save()); err != nil {
		t.Fatal(err)
	}
	before, generation := g.d.ConfigInterrupts(), g.d.Read32(virtio.RegConfigGeneration)
	g.d.Migrate(dev)
	g.d.WaitConfig(before)
	if got := g.d.Config(0, 8); got != 16 {
		t.Errorf("capacity %d, want 16", got)
	}
	if g.d.Read32(virtio.RegConfigGeneration) == generation {
		t.Error("the configuration's generation did not change")
	}
	if _, st := g.read(16, 512); st == statusOK {
		t.Error("a read beyond the end succeeds")
	}
	g.d.CheckHealthy()
}

// Four queues, each with several requests at once, against a shadow copy.
func TestManyAtOnce(t *testing.T) {
	const perQueue, size = 1 << 20, 4096
	for name, b := range map[string]Backend{
		"file":    newFile(t, tempFile(t, 4*perQueue)),
		"workers": &gated{Backend: NewMemory(make([]byte, 4*perQueue))},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, Config{Backend: b, Queues: 4})
			if g.d.Features&featureMQ == 0 {
				t.Fatal("no MQ")
			}
			var wg sync.WaitGroup
			for qi, q := range g.d.Queues {
				wg.Go(func() {
					shadow := make([]byte, perQueue)
					r := rand.New(rand.NewPCG(1, uint64(qi)))
					base := uint64(qi * perQueue / SectorSize)
					for range 30 {
						// Distinct blocks, so that order does not matter.
						want := map[uint16][]byte{}
						for _, block := range r.Perm(perQueue / size)[:16] {
							sector := base + uint64(block*size/SectorSize)
							part := shadow[block*size : (block+1)*size]
							if r.IntN(2) == 0 {
								for i := range part {
									part[i] = byte(r.Uint32())
								}
								want[q.Add([][]byte{reqHeader(typeOut, sector), part}, []int{1})] = nil
							} else {
								want[q.Add([][]byte{reqHeader(typeIn, sector)}, []int{size, 1})] = part
							}
						}
						q.Kick()
						for range 16 {
							u := q.MustUsed()
							part, ok := want[u.Head]
							if !ok || len(u.Data) == 0 || u.Data[len(u.Data)-1] != statusOK ||
								part != nil && !bytes.Equal(u.Data[:size], part) {
								t.Errorf("queue %d: request %d is wrong", qi, u.Head)
								return
							}
							delete(want, u.Head)
						}
					}
				})
			}
			wg.Wait()
			g.d.CheckHealthy()
		})
	}
}

var _ virtio.Device = (*Device)(nil)

// A kick that comes as a register write is served before that returns: the
// vCPU's own goroutine does it. Kicks from several vCPUs exclude each other.
func TestKickOnCPU(t *testing.T) {
	g := newGuest(t, Config{Backend: NewMemory(bytes.Repeat([]byte{7}, 1<<20))})
	if !g.d.T.Direct() {
		t.Fatal("the transport wants eventfds")
	}
	q := g.d.Queues[0]
	kick := func() { g.d.T.Write(virtio.RegQueueNotify, make([]byte, 4)) }
	for sector := range uint64(8) {
		q.Add([][]byte{reqHeader(typeIn, sector)}, []int{512, 1})
		kick()
		u := q.MustUsed()
		if len(u.Data) != 513 || u.Data[0] != 7 || u.Data[512] != statusOK {
			t.Fatalf("%d bytes", len(u.Data))
		}
	}
	if g.dev.Stats().Inline == 0 {
		t.Error("nothing was served inline")
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				kick()
			}
		})
	}
	for range 100 {
		if b, status := g.read(1, 4096); status != statusOK || b[0] != 7 {
			t.Fatal(status)
		}
	}
	wg.Wait()
}
