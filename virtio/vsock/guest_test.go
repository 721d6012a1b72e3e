package vsock

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"go.uber.org/goleak"
)

const testCID = 3

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guest is a scripted guest: the test says every packet.
type guest struct {
	t   testing.TB
	dev *Device
	d   *virtiotest.Driver
}

func newGuest(t testing.TB, cfg Config, rxBufs int) *guest {
	t.Helper()
	cfg.GuestCID = testCID
	if cfg.RXQueueSize == 0 {
		cfg.RXQueueSize = 256
	}
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, d: virtiotest.New(t, dev)}
	g.giveBuffers(rxBufs, 4096)
	return g
}

func (g *guest) giveBuffers(n, size int) {
	for range n {
		g.d.Queues[queueRX].Add(nil, []int{size})
	}
	g.d.Queues[queueRX].Kick()
}

// packet returns a packet of the guest with a large window.
func packet(op uint16, hostPort, guestPort uint32) header {
	return header{
		srcCID: testCID, dstCID: HostCID, srcPort: guestPort, dstPort: hostPort,
		typ: typeStream, op: op, bufAlloc: 1 << 20,
	}
}

func (g *guest) send(h header, data []byte) {
	g.t.Helper()
	if h.op == opData && h.length == 0 {
		h.length = uint32(len(data))
	}
	g.sendPieces(append(wire(h), data...))
}

func wire(h header) []byte {
	var b [headerSize]byte
	h.encode(&b)
	return b[:]
}

// sendPieces sends one chain of the given descriptors.
func (g *guest) sendPieces(pieces ...[]byte) {
	g.t.Helper()
	q := g.d.Queues[queueTX]
	for {
		if _, ok := q.TryUsed(); !ok {
			break
		}
	}
	q.Add(pieces, nil)
	q.Kick()
}

// recv takes the next packet of the host and gives the buffer back.
func (g *guest) recv() (header, []byte) {
	g.t.Helper()
	u := g.d.Queues[queueRX].MustUsed()
	if len(u.Data) < headerSize {
		g.t.Fatalf("packet of %d bytes", len(u.Data))
	}
	var h header
	h.decode((*[headerSize]byte)(u.Data))
	g.giveBuffers(1, 4096)
	if int(h.length) != len(u.Data)-headerSize {
		g.t.Fatalf("header says %d bytes, packet has %d", h.length, len(u.Data)-headerSize)
	}
	return h, u.Data[headerSize:]
}

func (g *guest) expect(op uint16) header {
	g.t.Helper()
	h, _ := g.recv()
	if h.op != op {
		g.t.Fatalf("got op %d (%+v), want %d", h.op, h, op)
	}
	return h
}

// listen returns a listener that the test closes.
func (g *guest) listen(port uint32) *Listener {
	g.t.Helper()
	l, err := g.dev.Listen(port)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return l.(*Listener)
}

// connect makes a connection from the guest's port 5000 to the host's 1024.
func (g *guest) connect() *Conn {
	g.t.Helper()
	l := g.listen(1024)
	g.send(packet(opRequest, 1024, 5000), nil)
	c, err := l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	g.expect(opResponse)
	g.t.Cleanup(func() { c.Close() })
	return c.(*Conn)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), virtiotest.Timeout)
	t.Cleanup(cancel)
	return ctx
}

// lane drives one ring with fixed buffers and no allocation: what carries bulk.
type lane struct {
	t        testing.TB
	d        *virtiotest.Driver
	q        *virtiotest.Queue
	buf      [][]byte
	gpa      []uint64
	free     []uint16
	avail    guestmem.Window
	used     guestmem.Window
	idx      uint16
	kicked   uint16
	lastUsed uint16
}

func newLane(t testing.TB, d *virtiotest.Driver, queue, size int, flags uint16) *lane {
	q := d.Queues[queue]
	l := &lane{t: t, d: d, q: q}
	n := uint64(q.Size)
	var err error
	if l.avail, err = d.Mem.Window(q.AvailAddr, 6+2*n, 2); err != nil {
		t.Fatal(err)
	}
	if l.used, err = d.Mem.Window(q.UsedAddr, 6+8*n, 4); err != nil {
		t.Fatal(err)
	}
	for i := range q.Size {
		gpa := d.Alloc(size)
		b, err := d.Mem.Slice(gpa, uint64(size))
		if err != nil {
			t.Fatal(err)
		}
		l.buf, l.gpa = append(l.buf, b), append(l.gpa, gpa)
		q.PokeDesc(i, virtiotest.Desc{Addr: gpa, Len: uint32(size), Flags: flags})
		l.free = append(l.free, i)
	}
	return l
}

func (l *lane) publish(i uint16) {
	l.avail.Store16(4+2*int(l.idx%l.q.Size), i)
	l.idx++
	l.avail.Store16(2, l.idx)
}

// publishLen publishes buffer i cut to n bytes.
func (l *lane) publishLen(i uint16, n int) {
	l.q.PokeDesc(i, virtiotest.Desc{Addr: l.gpa[i], Len: uint32(n)})
	l.publish(i)
}

func (l *lane) kick() {
	event := l.used.Load16(4 + 8*int(l.q.Size))
	if l.idx-event-1 < l.idx-l.kicked {
		l.q.ForceKick()
	}
	l.kicked = l.idx
}

func (l *lane) take() (i uint16, n int, ok bool) {
	if l.used.Load16(2) == l.lastUsed {
		return 0, 0, false
	}
	at := 4 + 8*int(l.lastUsed%l.q.Size)
	i, n = uint16(l.used.Load32(at)), int(l.used.Load32(at+4))
	l.lastUsed++
	return i, n, true
}

// wait sleeps until there is a used buffer; false is the end of ctx.
func (l *lane) wait(ctx context.Context) bool {
	return l.d.Wait(ctx, func() bool {
		l.avail.Store16(4+2*int(l.q.Size), l.lastUsed) // used_event
		return l.used.Load16(2) != l.lastUsed
	}) == nil
}

// side is one of two devices that are connected back to back.
type side struct {
	dev    *Device
	d      *virtiotest.Driver
	rx, tx *lane
}

func newSide(t testing.TB, cid uint64, txSize int) *side {
	dev, err := New(Config{GuestCID: cid, QueueSize: 64, CloseTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	mem, err := guestmem.FromBytes(virtiotest.MemBase, make([]byte, 16<<20))
	if err != nil {
		t.Fatal(err)
	}
	s := &side{dev: dev, d: virtiotest.New(t, dev, virtiotest.Options{Mem: mem})}
	s.rx = newLane(t, s.d, queueRX, 4096+headerSize, virtiotest.DescWrite)
	s.tx = newLane(t, s.d, queueTX, txSize, 0)
	for _, i := range s.rx.free {
		s.rx.publish(i)
	}
	s.rx.free = nil
	s.rx.kick()
	return s
}

// newPair connects two devices: each is the other's guest. What one puts into its
// receive ring is carried to the other's transmit ring with the CIDs swapped.
func newPair(t testing.TB) (a, b *side) {
	a, b = newSide(t, 3, 8192), newSide(t, 4, 8192)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { carry(ctx, a, b, 4); done <- struct{}{} }()
	go func() { carry(ctx, b, a, 3); done <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		a.dev.Close()
		b.dev.Close()
	})
	return a, b
}

func carry(ctx context.Context, from, to *side, cid uint64) {
	for {
		i, n, ok := from.rx.take()
		if !ok {
			from.rx.kick()
			to.tx.kick()
			if !from.rx.wait(ctx) {
				return
			}
			continue
		}
		for len(to.tx.free) == 0 {
			if j, _, ok := to.tx.take(); ok {
				to.tx.free = append(to.tx.free, j)
				continue
			}
			to.tx.kick()
			if !to.tx.wait(ctx) {
				return
			}
		}
		j := to.tx.free[len(to.tx.free)-1]
		to.tx.free = to.tx.free[:len(to.tx.free)-1]
		copy(to.tx.buf[j], from.rx.buf[i][:n])
		binary.LittleEndian.PutUint64(to.tx.buf[j][0:], cid)
		binary.LittleEndian.PutUint64(to.tx.buf[j][8:], HostCID)
		from.rx.publish(i)
		to.tx.publishLen(j, n)
	}
}
