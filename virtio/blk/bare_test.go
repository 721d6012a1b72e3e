package blk

import (
	"encoding/binary"
	"testing"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// bare is a device without a transport: the test calls HandleQueue itself and
// the driver wants no interrupts. Request i has three or more descriptors:
// header, data in pieces, status.
type bare struct {
	dev         *Device
	desc        []byte
	avail, used guestmem.Window
	idx, last   uint16
	headers     [][]byte
	status      [][]byte
	perReq      int
}

const bareSize = 256

func newBare(t testing.TB, cfg Config, pieces, pieceLen int, write bool) *bare {
	t.Helper()
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := guestmem.Allocate(guestmem.Range{GPA: 0, Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	qc := virtq.Config{Size: bareSize, Desc: 0, Driver: 8192, Device: 16384}
	q, err := virtq.New(mem, qc)
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{dev: dev, perReq: pieces + 2}
	b.desc, _ = mem.Slice(qc.Desc, 16*bareSize)
	b.avail, _ = mem.Window(qc.Driver, 6+2*bareSize, 2)
	b.used, _ = mem.Window(qc.Device, 6+8*bareSize, 4)
	b.avail.Store16(0, 1) // VIRTQ_AVAIL_F_NO_INTERRUPT
	at := uint64(1 << 20)
	take := func(i, n int, flags uint16) []byte {
		d := b.desc[16*i:]
		binary.LittleEndian.PutUint64(d, at)
		binary.LittleEndian.PutUint32(d[8:], uint32(n))
		binary.LittleEndian.PutUint16(d[12:], flags)
		binary.LittleEndian.PutUint16(d[14:], uint16(i+1))
		s, err := mem.Slice(at, uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		at += (uint64(n) + 4095) &^ 4095
		return s
	}
	dataFlags := uint16(virtiotest.DescNext | virtiotest.DescWrite)
	if write {
		dataFlags = virtiotest.DescNext
	}
	for i := 0; i+b.perReq <= bareSize && at+uint64(pieces*pieceLen) < 60<<20; i += b.perReq {
		b.headers = append(b.headers, take(i, 16, virtiotest.DescNext))
		for k := range pieces {
			take(i+1+k, pieceLen, dataFlags)
		}
		b.status = append(b.status, take(i+b.perReq-1, 1, virtiotest.DescWrite))
	}
	s := &virtio.Session{Mem: mem, Queues: []*virtq.Queue{q}, Features: featureFlush}
	if err := dev.Activate(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dev.Reset()
		mem.Close()
	})
	return b
}

// add makes request i available.
func (b *bare) add(i int, typ uint32, sector uint64) {
	binary.LittleEndian.PutUint32(b.headers[i], typ)
	binary.LittleEndian.PutUint64(b.headers[i][8:], sector)
	b.status[i][0] = 0xff
	b.avail.Store16(4+2*int(b.idx%bareSize), uint16(i*b.perReq))
	b.idx++
	b.avail.Store16(2, b.idx)
}

// run serves n requests and reports whether all were good.
func (b *bare) run(t testing.TB, n int) {
	if err := b.dev.HandleQueue(0); err != nil {
		t.Fatal(err)
	}
	b.dev.Quiesce()
	if got := b.used.Load16(2) - b.last; int(got) != n {
		t.Fatalf("%d of %d requests are done", got, n)
	}
	b.last += uint16(n)
	for i := range n {
		if b.status[i][0] != statusOK {
			t.Fatalf("request %d: status %d", i, b.status[i][0])
		}
	}
}

// cachedFile is a file whose content is in the page cache.
func cachedFile(t testing.TB, size int) *File {
	f := tempFile(t, int64(size))
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	return newFile(t, f)
}

// A long request is served at once when it is alone; of several, all but the last
// go to workers.
func TestAloneIsInline(t *testing.T) {
	const long = paceBytes + 4096
	for _, write := range []bool{false, true} {
		typ := uint32(typeIn)
		if write {
			typ = typeOut
		}
		b := newBare(t, Config{Backend: NewMemory(make([]byte, 8<<20))}, 1, long, write)
		b.dev.nowait = nil // a backend that cannot tell
		b.add(0, typ, 0)
		b.run(t, 1)
		if got := b.dev.Stats().Inline; got != 1 {
			t.Errorf("write %v: alone: %d inline", write, got)
		}
		for i := range 4 {
			b.add(i, typ, uint64(i)*long/SectorSize)
		}
		b.run(t, 4)
		if got := b.dev.Stats().Inline; got != 2 {
			t.Errorf("write %v: one and four: %d inline", write, got)
		}
	}
}

func TestNoAllocationPerRequest(t *testing.T) {
	for _, tt := range []struct {
		name   string
		typ    uint32
		pieces int
		slow   bool
	}{
		{"cached read", typeIn, 1, false},
		{"cached read of 8 pieces", typeIn, 8, false},
		{"write", typeOut, 1, false},
		{"read by a worker", typeIn, 1, true},
		{"flush", typeFlush, 1, false},
	} {
		var backend Backend = cachedFile(t, 1<<20)
		if tt.slow {
			backend = &gated{Backend: backend}
		}
		b := newBare(t, Config{Backend: backend}, tt.pieces, 4096, tt.typ == typeOut)
		if tt.slow {
			b.dev.pace.slowUntil.Store(1 << 62)
		}
		if n := testing.AllocsPerRun(100, func() {
			for i := range 8 {
				b.add(i, tt.typ, uint64(i*8))
			}
			b.run(t, 8)
		}); n != 0 {
			t.Errorf("%s: %v allocations for 8 requests", tt.name, n)
		}
	}
}

func benchmarkBare(b *testing.B, backend Backend, typ uint32, depth, pieces, pieceLen int, sectors uint64) {
	g := newBare(b, Config{Backend: backend}, pieces, pieceLen, typ == typeOut)
	b.SetBytes(int64(depth * pieces * pieceLen))
	b.ReportAllocs()
	step := uint64(pieces * pieceLen / SectorSize)
	x := uint64(1)
	for b.Loop() {
		for i := range depth {
			x = x*6364136223846793005 + 1442695040888963407
			g.add(i, typ, (x>>33)%(sectors/step)*step)
		}
		g.run(b, depth)
	}
	b.ReportMetric(float64(b.N*depth)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkRead4K: random reads from the page cache, 32 at a time, device only.
func BenchmarkRead4K(b *testing.B) {
	benchmarkBare(b, cachedFile(b, 64<<20), typeIn, 32, 1, 4096, 64<<20/SectorSize)
}

// BenchmarkRead4KByWorkers is the same without the look into the page cache.
func BenchmarkRead4KByWorkers(b *testing.B) {
	g := &gated{Backend: cachedFile(b, 64<<20)}
	dev := newBare(b, Config{Backend: g}, 1, 4096, false)
	dev.dev.pace.slowUntil.Store(1 << 62)
	b.SetBytes(32 * 4096)
	b.ReportAllocs()
	for b.Loop() {
		for i := range 32 {
			dev.add(i, typeIn, uint64(i*8))
		}
		dev.run(b, 32)
	}
}

// BenchmarkWrite4K: random writes into the page cache.
func BenchmarkWrite4K(b *testing.B) {
	benchmarkBare(b, cachedFile(b, 64<<20), typeOut, 32, 1, 4096, 64<<20/SectorSize)
}

// BenchmarkRead128K: sequential-sized reads in pieces of a page.
func BenchmarkRead128K(b *testing.B) {
	benchmarkBare(b, cachedFile(b, 64<<20), typeIn, 7, 32, 4096, 64<<20/SectorSize)
}

// BenchmarkRead128KContiguous: the same in one piece.
func BenchmarkRead128KContiguous(b *testing.B) {
	benchmarkBare(b, cachedFile(b, 64<<20), typeIn, 8, 1, 128<<10, 64<<20/SectorSize)
}

// BenchmarkTransportRead4K: one at a time through eventfds and interrupts.
func BenchmarkTransportRead4K(b *testing.B) {
	g := newGuest(b, Config{Backend: cachedFile(b, 1<<20)})
	b.SetBytes(4096)
	for b.Loop() {
		if _, st := g.read(8, 4096); st != statusOK {
			b.Fatal(st)
		}
	}
}
