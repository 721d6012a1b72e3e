package net

import (
	"encoding/binary"
	"testing"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"github.com/hutchvm/hutch/virtio/virtq"
)

const bareSize = 256

// bareRing is a driver's side that costs nothing: entry i of the ring is always
// descriptor i.
type bareRing struct {
	avail, used guestmem.Window
	q           *virtq.Queue
	idx         uint16
}

func newBareRing(t testing.TB, mem *guestmem.Memory, at uint64, bufLen uint32, flags uint16) *bareRing {
	t.Helper()
	qc := virtq.Config{Size: bareSize, Desc: at, Driver: at + 8192, Device: at + 16384}
	q, err := virtq.New(mem, qc)
	if err != nil {
		t.Fatal(err)
	}
	r := &bareRing{q: q}
	desc, _ := mem.Slice(qc.Desc, 16*bareSize)
	for i := range uint64(bareSize) {
		binary.LittleEndian.PutUint64(desc[16*i:], at+32768+i*uint64(bufLen))
		binary.LittleEndian.PutUint32(desc[16*i+8:], bufLen)
		binary.LittleEndian.PutUint16(desc[16*i+12:], flags)
	}
	r.avail, _ = mem.Window(qc.Driver, 6+2*bareSize, 2)
	r.used, _ = mem.Window(qc.Device, 6+8*bareSize, 4)
	r.avail.Store16(0, 1) // VIRTQ_AVAIL_F_NO_INTERRUPT
	for i := range bareSize {
		r.avail.Store16(4+2*i, uint16(i))
	}
	return r
}

func (r *bareRing) give(n int) {
	r.idx += uint16(n)
	r.avail.Store16(2, r.idx)
}

// sink takes every frame.
type sink struct{ bytes int }

func (s *sink) Transmit(_ int, f *Frame) bool { s.bytes += f.Len; return true }
func (s *sink) TransmitDone(int)              {}
func (s *sink) ReceiveReady(int)              {}

func newBare(t testing.TB) (*Device, *bareRing, *bareRing) {
	t.Helper()
	mem, err := guestmem.Allocate(guestmem.Range{GPA: 0, Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := New(Config{Backend: &sink{}, MAC: testMAC})
	if err != nil {
		t.Fatal(err)
	}
	rx := newBareRing(t, mem, 0, 1536, virtiotest.DescWrite)
	tx := newBareRing(t, mem, 1<<20, 1200, 0)
	s := &virtio.Session{Mem: mem, Queues: []*virtq.Queue{rx.q, tx.q}, Features: featureMrgRxbuf | offloads}
	if err := dev.Activate(s); err != nil {
		t.Fatal(err)
	}
	if err := dev.HandleQueue(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dev.Reset()
		mem.Close()
	})
	return dev, rx, tx
}

func TestNoAllocationPerFrame(t *testing.T) {
	dev, rx, tx := newBare(t)
	big := frameOf(65000)
	pieces := [][]byte{big[:54], big[54:32000], big[32000:]}
	h := &Header{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, GSO: GSOTCPv4, SegmentSize: 1448}
	if n := testing.AllocsPerRun(1000, func() {
		rx.give(43)
		if err := dev.Receive(0, h, pieces); err != nil {
			t.Fatal(err)
		}
		dev.Flush(0)
	}); n != 0 {
		t.Errorf("%v allocations per received frame", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		tx.give(8)
		if err := dev.HandleQueue(1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per 8 sent frames", n)
	}
	if st := dev.Stats(); st.TxFrames < 8000 || st.RxFrames < 1000 || st.TxDrops+st.RxDrops != 0 {
		t.Errorf("stats %+v", st)
	}
}

func BenchmarkReceive64K(b *testing.B) {
	dev, rx, _ := newBare(b)
	f := [][]byte{frameOf(65000)}
	h := &Header{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, GSO: GSOTCPv4, SegmentSize: 1448}
	b.SetBytes(65000)
	b.ReportAllocs()
	for b.Loop() {
		rx.give(43)
		if err := dev.Receive(0, h, f); err != nil {
			b.Fatal(err)
		}
		dev.Flush(0)
	}
}

func BenchmarkTransmit(b *testing.B) {
	dev, _, tx := newBare(b)
	b.ReportAllocs()
	for b.Loop() {
		tx.give(1)
		if err := dev.HandleQueue(1); err != nil {
			b.Fatal(err)
		}
	}
}
