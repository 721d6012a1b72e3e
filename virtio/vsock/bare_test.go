package vsock

import (
	"testing"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// bare is a device without a transport: the test calls HandleQueue itself, and
// the driver wants no interrupts. What it measures is the device alone.
type bare struct {
	dev *Device
	c   *Conn
	rx  *bareRing
	tx  *bareRing
}

type bareRing struct {
	buf         [][]byte
	desc        []byte
	avail, used guestmem.Window
	idx, last   uint16
	size        uint16
}

func newBareRing(t testing.TB, mem *guestmem.Memory, at *uint64, size uint16, bufSize int, flags byte) (*virtq.Queue, *bareRing) {
	n := uint64(size)
	take := func(bytes uint64) uint64 {
		gpa := *at
		*at += (bytes + 4095) &^ 4095
		return gpa
	}
	cfg := virtq.Config{Size: size, Desc: take(16 * n), Driver: take(6 + 2*n), Device: take(6 + 8*n)}
	q, err := virtq.New(mem, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &bareRing{size: size}
	r.desc, _ = mem.Slice(cfg.Desc, 16*n)
	r.avail, _ = mem.Window(cfg.Driver, 6+2*n, 2)
	r.used, _ = mem.Window(cfg.Device, 6+8*n, 4)
	r.avail.Store16(0, 1) // VIRTQ_AVAIL_F_NO_INTERRUPT
	for i := range int(size) {
		gpa := take(uint64(bufSize))
		b, err := mem.Slice(gpa, uint64(bufSize))
		if err != nil {
			t.Fatal(err)
		}
		r.buf = append(r.buf, b)
		d := r.desc[16*i:]
		for k := range 8 {
			d[k] = byte(gpa >> (8 * k))
		}
		r.setLen(uint16(i), bufSize)
		d[12] = flags
	}
	return q, r
}

func (r *bareRing) setLen(i uint16, n int) {
	for k := range 4 {
		r.desc[16*int(i)+8+k] = byte(n >> (8 * k))
	}
}

func (r *bareRing) publish(i uint16) {
	r.avail.Store16(4+2*int(r.idx%r.size), i)
	r.idx++
	r.avail.Store16(2, r.idx)
}

// take returns the next used buffer and its length.
func (r *bareRing) take() (i uint16, n int, ok bool) {
	if r.used.Load16(2) == r.last {
		return 0, 0, false
	}
	at := 4 + 8*int(r.last%r.size)
	r.last++
	return uint16(r.used.Load32(at)), int(r.used.Load32(at + 4)), true
}

// newBare connects the guest's port 5000 to the host's 1024.
func newBare(t testing.TB) *bare {
	t.Helper()
	dev, err := New(Config{GuestCID: testCID, QueueSize: 128})
	if err != nil {
		t.Fatal(err)
	}
	mem, err := guestmem.FromBytes(0, make([]byte, 32<<20))
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{dev: dev}
	var at uint64
	rx, rxRing := newBareRing(t, mem, &at, 128, headerSize+4096, 2)
	tx, txRing := newBareRing(t, mem, &at, 128, headerSize+64<<10, 0)
	b.rx, b.tx = rxRing, txRing
	if err := dev.Activate(&virtio.Session{Mem: mem, Queues: []*virtq.Queue{rx, tx, nil}}); err != nil {
		t.Fatal(err)
	}
	l, err := dev.Listen(1024)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b.rx.size {
		b.rx.publish(i)
	}
	h := packet(opRequest, 1024, 5000)
	h.bufAlloc = maxInFlight
	b.send(t, h, 0)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b.c = c.(*Conn)
	b.drain()
	t.Cleanup(func() {
		b.c.Close()
		dev.Reset()
		dev.Close()
	})
	return b
}

// send sends a packet of n bytes and has the device take it.
func (b *bare) send(t testing.TB, h header, n int) {
	i := b.tx.idx % b.tx.size
	h.length = uint32(n)
	h.encode((*[headerSize]byte)(b.tx.buf[i]))
	b.tx.setLen(i, headerSize+n)
	b.tx.publish(i)
	if err := b.dev.HandleQueue(queueTX); err != nil {
		t.Fatal(err)
	}
	b.tx.last = b.tx.idx
}

// drain takes what the host sent, gives the buffers back and acknowledges.
func (b *bare) drain() int {
	total := 0
	for {
		i, n, ok := b.rx.take()
		if !ok {
			return total
		}
		total += n - headerSize
		b.rx.publish(i)
	}
}

func (b *bare) acknowledge(t testing.TB) {
	h := packet(opCreditUpdate, 1024, 5000)
	h.bufAlloc, h.fwdCnt = maxInFlight, b.c.send.sent.Load()
	b.send(t, h, 0)
}

func TestNoAllocationPerPacket(t *testing.T) {
	b := newBare(t)
	out := make([]byte, 64<<10)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := b.c.Write(out); err != nil {
			t.Fatal(err)
		}
		if got := b.drain(); got != len(out) {
			t.Fatalf("guest got %d bytes", got)
		}
		b.acknowledge(t)
	}); n != 0 {
		t.Errorf("%v allocations for a Write of 64 KiB", n)
	}
	in := make([]byte, 64<<10)
	h := packet(opData, 1024, 5000)
	h.bufAlloc = maxInFlight
	if n := testing.AllocsPerRun(200, func() {
		h.fwdCnt = b.c.send.sent.Load()
		b.send(t, h, len(in))
		if n, err := b.c.Read(in); err != nil || n != len(in) {
			t.Fatal(n, err)
		}
		b.drain()
	}); n != 0 {
		t.Errorf("%v allocations for a packet to the host", n)
	}
}

// BenchmarkHostToGuest: 64 KiB writes into receive buffers of 4 KiB.
func BenchmarkHostToGuest(b *testing.B) {
	g := newBare(b)
	out := make([]byte, 64<<10)
	b.SetBytes(int64(len(out)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.c.Write(out); err != nil {
			b.Fatal(err)
		}
		g.drain()
		g.acknowledge(b)
	}
}

// BenchmarkGuestToHost: packets of 64 KiB, read at once.
func BenchmarkGuestToHost(b *testing.B) {
	g := newBare(b)
	in := make([]byte, 64<<10)
	h := packet(opData, 1024, 5000)
	h.bufAlloc = maxInFlight
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		h.fwdCnt = g.c.send.sent.Load()
		g.send(b, h, len(in))
		if _, err := g.c.Read(in); err != nil {
			b.Fatal(err)
		}
		g.drain()
	}
}

// BenchmarkPair: a stream from one device to another through transports, eventfds
// and goroutines, 4 KiB a packet.
func BenchmarkPair(b *testing.B) {
	s1, s2 := newPair(b)
	c1, c2 := dialPair(b, s1, s2, 80)
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256<<10)
		for {
			if _, err := c2.Read(buf); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		if _, err := c1.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	c1.Close()
	<-done
	c2.Close()
}

// BenchmarkPingPong: one byte there and back between two devices.
func BenchmarkPingPong(b *testing.B) {
	s1, s2 := newPair(b)
	c1, c2 := dialPair(b, s1, s2, 80)
	go func() {
		p := make([]byte, 1)
		for {
			if _, err := c2.Read(p); err != nil {
				return
			}
			c2.Write(p)
		}
	}()
	p := make([]byte, 1)
	for b.Loop() {
		c1.Write(p)
		if _, err := c1.Read(p); err != nil {
			b.Fatal(err)
		}
	}
	c1.Close()
	c2.Close()
}
