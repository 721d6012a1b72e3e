package virtiotest

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/hutchvm/hutch/virtio"
)

// Descriptor flags (2.7.5).
const (
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4
)

// Desc is one entry of a descriptor table.
type Desc struct {
	Addr  uint64
	Len   uint32
	Flags uint16
	Next  uint16
}

// Queue is the driver's side of one virtqueue. Its methods are safe for concurrent
// use, except those of the raw kind.
type Queue struct {
	D     *Driver
	Index int
	Size  uint16

	DescAddr, AvailAddr, UsedAddr uint64

	mu       sync.Mutex
	avail    uint16 // our available index
	kicked   uint16 // value of avail at the last kick decision
	lastUsed uint16
	free     []uint16 // unused descriptors
	pending  map[uint16]*request
	areaLen  uint64
}

type piece struct {
	gpa uint64
	n   uint64
}

type request struct {
	descs    []uint16
	pieces   []piece // all that must be freed
	writable []piece
}

// Used is one finished request.
type Used struct {
	Head uint16
	Len  uint32 // what the device says it wrote
	// Data is the content of the writable buffers, put together and cut to Len.
	Data []byte
}

func newQueue(d *Driver, index int, size uint16) *Queue {
	d.TB.Helper()
	q := &Queue{D: d, Index: index, Size: size, pending: make(map[uint16]*request)}
	n := uint64(size)
	desc := 16 * n
	avail := (6 + 2*n + 3) / 4 * 4
	used := (6 + 8*n + 7) / 8 * 8
	q.areaLen = desc + avail + used
	at, ok := d.alloc.get(q.areaLen, 4096)
	if !ok {
		d.TB.Fatalf("no memory for queue %d", index)
	}
	q.DescAddr, q.AvailAddr, q.UsedAddr = at, at+desc, at+desc+avail
	q.Poke(at, make([]byte, q.areaLen))
	for i := int(size) - 1; i >= 0; i-- {
		q.free = append(q.free, uint16(i))
	}
	return q
}

// Configure writes the queue's registers and makes it ready.
func (q *Queue) Configure() {
	d := q.D
	d.Write32(virtio.RegQueueSel, uint32(q.Index))
	d.Write32(virtio.RegQueueSize, uint32(q.Size))
	for _, r := range []struct {
		low  uint64
		addr uint64
	}{
		{virtio.RegQueueDescLow, q.DescAddr},
		{virtio.RegQueueDriverLow, q.AvailAddr},
		{virtio.RegQueueDeviceLow, q.UsedAddr},
	} {
		d.Write32(r.low, uint32(r.addr))
		d.Write32(r.low+4, uint32(r.addr>>32))
	}
	d.Write32(virtio.RegQueueReady, 1)
}

// release gives the rings' and all requests' memory back after a reset.
func (q *Queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.pending {
		for _, p := range r.pieces {
			q.D.alloc.put(p.gpa, p.n)
		}
	}
	q.pending = nil
	q.D.alloc.put(q.DescAddr, q.areaLen)
}

// Poke writes raw bytes to guest memory.
func (q *Queue) Poke(gpa uint64, b []byte) {
	q.D.TB.Helper()
	if _, err := q.D.Mem.WriteAt(b, int64(gpa)); err != nil {
		q.D.TB.Fatal(err)
	}
}

// PokeDesc overwrites entry i of the descriptor table.
func (q *Queue) PokeDesc(i uint16, e Desc) { q.Poke(q.DescAddr+16*uint64(i), e.bytes()) }

func (e Desc) bytes() []byte {
	b := binary.LittleEndian.AppendUint64(nil, e.Addr)
	b = binary.LittleEndian.AppendUint32(b, e.Len)
	b = binary.LittleEndian.AppendUint16(b, e.Flags)
	return binary.LittleEndian.AppendUint16(b, e.Next)
}

// PokeAvail makes the chain at head available, whatever it is, without a kick.
func (q *Queue) PokeAvail(head uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.publish(head)
}

// PokeAvailIndex overwrites the available index.
func (q *Queue) PokeAvailIndex(v uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.avail = v
	q.store16(q.AvailAddr+2, v)
}

// AddRaw writes descriptors from entry 0 on, makes the first available and kicks:
// for chains that no sane driver would build.
func (q *Queue) AddRaw(descs ...Desc) {
	for i, e := range descs {
		q.PokeDesc(uint16(i), e)
	}
	q.PokeAvail(0)
	q.ForceKick()
}

func (q *Queue) store16(gpa uint64, v uint16) {
	q.D.TB.Helper()
	if err := q.D.Mem.StoreUint16(gpa, v); err != nil {
		q.D.TB.Error(err)
	}
}

func (q *Queue) load16(gpa uint64) uint16 {
	q.D.TB.Helper()
	v, err := q.D.Mem.LoadUint16(gpa)
	if err != nil {
		q.D.TB.Error(err)
	}
	return v
}

func (q *Queue) publish(head uint16) {
	q.store16(q.AvailAddr+4+2*uint64(q.avail%q.Size), head)
	q.avail++
	q.store16(q.AvailAddr+2, q.avail)
}

// Free is the number of unused descriptors.
func (q *Queue) Free() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.free)
}

// Add makes a request available without a kick: buffers with content that the
// device reads, then buffers of the given sizes that it writes. It returns the
// request's head and fails the test when the queue or the memory is full.
func (q *Queue) Add(readable [][]byte, writable []int) uint16 {
	q.D.TB.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	r := &request{}
	var descs []Desc
	for _, b := range readable {
		at := q.take(r, uint64(len(b)))
		q.Poke(at, b)
		descs = append(descs, Desc{Addr: at, Len: uint32(len(b))})
	}
	for _, n := range writable {
		at := q.take(r, uint64(n))
		r.writable = append(r.writable, piece{at, uint64(n)})
		descs = append(descs, Desc{Addr: at, Len: uint32(n), Flags: DescWrite})
	}
	if len(descs) > 1 && q.D.Features&virtio.FeatureIndirectDesc != 0 {
		n := uint64(16 * len(descs))
		table := q.take(r, n)
		for i, e := range descs {
			if i+1 < len(descs) {
				e.Flags, e.Next = e.Flags|DescNext, uint16(i+1)
			}
			q.Poke(table+16*uint64(i), e.bytes())
		}
		descs = []Desc{{Addr: table, Len: uint32(n), Flags: DescIndirect}}
	}
	if len(descs) == 0 || len(descs) > len(q.free) {
		q.D.TB.Fatalf("queue %d: %d descriptors wanted, %d free", q.Index, len(descs), len(q.free))
	}
	for range descs {
		r.descs = append(r.descs, q.free[len(q.free)-1])
		q.free = q.free[:len(q.free)-1]
	}
	for i, e := range descs {
		if i+1 < len(descs) {
			e.Flags, e.Next = e.Flags|DescNext, r.descs[i+1]
		}
		q.PokeDesc(r.descs[i], e)
	}
	head := r.descs[0]
	q.pending[head] = r
	q.publish(head)
	return head
}

// take allocates memory for a request.
func (q *Queue) take(r *request, n uint64) uint64 {
	q.D.TB.Helper()
	q.D.mu.Lock()
	at, ok := q.D.alloc.get(max(n, 1), 16)
	q.D.mu.Unlock()
	if !ok {
		q.D.TB.Fatalf("queue %d: no %d bytes of guest memory left", q.Index, n)
	}
	r.pieces = append(r.pieces, piece{at, max(n, 1)})
	return at
}

// Kick notifies the device of what was added, if it wants to know, through the
// queue's eventfd. It reports whether it did.
func (q *Queue) Kick() bool {
	q.mu.Lock()
	old := q.kicked
	q.kicked = q.avail
	var want bool
	if q.D.Features&virtio.FeatureEventIdx != 0 {
		event := q.load16(q.UsedAddr + 4 + 8*uint64(q.Size))
		want = q.avail-event-1 < q.avail-old
	} else {
		want = q.load16(q.UsedAddr)&1 == 0
	}
	q.mu.Unlock()
	if want {
		q.ForceKick()
	}
	return want
}

// ForceKick notifies the device whether it wants or not.
func (q *Queue) ForceKick() { ring(q.D.T.NotifyFDs()[q.Index]) }

// TryUsed takes a finished request, if there is one.
func (q *Queue) TryUsed() (Used, bool) {
	q.D.TB.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	idx := q.load16(q.UsedAddr + 2)
	if idx == q.lastUsed {
		return Used{}, false
	}
	if idx-q.lastUsed > q.Size {
		q.D.TB.Errorf("queue %d: used index went from %d to %d", q.Index, q.lastUsed, idx)
	}
	elem := q.UsedAddr + 4 + 8*uint64(q.lastUsed%q.Size)
	id, _ := q.D.Mem.LoadUint32(elem)
	n, _ := q.D.Mem.LoadUint32(elem + 4)
	q.lastUsed++
	u := Used{Head: uint16(id), Len: n}
	r, ok := q.pending[u.Head]
	if !ok {
		// Raw requests are not known.
		return u, true
	}
	delete(q.pending, u.Head)
	for _, p := range r.writable {
		b, err := q.D.Mem.Slice(p.gpa, p.n)
		if err != nil {
			q.D.TB.Error(err)
		}
		u.Data = append(u.Data, b...)
	}
	if int(n) > len(u.Data) {
		q.D.TB.Errorf("queue %d: device wrote %d bytes to a buffer of %d", q.Index, n, len(u.Data))
	} else {
		u.Data = u.Data[:n]
	}
	q.D.mu.Lock()
	for _, p := range r.pieces {
		q.D.alloc.put(p.gpa, p.n)
	}
	q.D.mu.Unlock()
	q.free = append(q.free, r.descs...)
	return u, true
}

// SetNoInterrupt sets or clears the flag of the available ring that asks for no
// interrupts; it means something without EVENT_IDX only.
func (q *Queue) SetNoInterrupt(on bool) {
	var v uint16
	if on {
		v = 1
	}
	q.store16(q.AvailAddr, v)
}

// WaitUsed waits for a finished request, sleeping until the device interrupts.
func (q *Queue) WaitUsed(ctx context.Context) (Used, error) {
	q.D.TB.Helper()
	var u Used
	err := q.D.Wait(ctx, func() bool {
		q.mu.Lock()
		// Ask for an interrupt for the next one, then look.
		q.store16(q.AvailAddr+4+2*uint64(q.Size), q.lastUsed)
		q.mu.Unlock()
		var ok bool
		u, ok = q.TryUsed()
		return ok
	})
	return u, err
}

// MustUsed is WaitUsed, and fails the test when nothing comes.
func (q *Queue) MustUsed() Used {
	q.D.TB.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	u, err := q.WaitUsed(ctx)
	if err != nil {
		q.D.TB.Fatalf("queue %d: no used buffer: %v (status %#x, failures %v)",
			q.Index, err, q.D.Status(), q.D.Failures())
	}
	return u
}

// Do adds a request, kicks and waits for it: for queues with one request at a time.
func (q *Queue) Do(readable [][]byte, writable ...int) Used {
	q.D.TB.Helper()
	head := q.Add(readable, writable)
	q.Kick()
	u := q.MustUsed()
	if u.Head != head {
		q.D.TB.Fatalf("queue %d: request %d came back, want %d", q.Index, u.Head, head)
	}
	return u
}
