package virtq

import (
	"encoding/binary"
	"testing"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// ring is the driver's side, as simple as it can be: memory at fixed places.
type ring struct {
	t    testing.TB
	mem  *guestmem.Memory
	cfg  Config
	idx  uint16 // available index
	used uint16 // used entries taken
}

const (
	memBase  = 0x4000
	memSize  = 1 << 16
	descAt   = memBase
	availAt  = memBase + 0x1000
	usedAt   = memBase + 0x2000
	tableAt  = memBase + 0x4000 // indirect tables
	bufferAt = memBase + 0x8000
)

func newRing(t testing.TB, size uint16) *ring {
	t.Helper()
	mem, err := guestmem.FromBytes(memBase, make([]byte, memSize))
	if err != nil {
		t.Fatal(err)
	}
	return &ring{t: t, mem: mem, cfg: Config{
		Size: size, MaxSize: 256, Desc: descAt, Driver: availAt, Device: usedAt, EventIdx: true, Indirect: true,
	}}
}

func (r *ring) queue() *Queue {
	r.t.Helper()
	q, err := New(r.mem, r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}

func (r *ring) store16(gpa uint64, v uint16) {
	r.t.Helper()
	if err := r.mem.StoreUint16(gpa, v); err != nil {
		r.t.Fatal(err)
	}
}

func (r *ring) load16(gpa uint64) uint16 {
	r.t.Helper()
	v, err := r.mem.LoadUint16(gpa)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// put writes a descriptor table at gpa.
func (r *ring) put(gpa uint64, descs ...descriptor) {
	r.t.Helper()
	var b []byte
	for _, d := range descs {
		b = binary.LittleEndian.AppendUint64(b, d.addr)
		b = binary.LittleEndian.AppendUint32(b, d.len)
		b = binary.LittleEndian.AppendUint16(b, d.flags)
		b = binary.LittleEndian.AppendUint16(b, d.next)
	}
	if _, err := r.mem.WriteAt(b, int64(gpa)); err != nil {
		r.t.Fatal(err)
	}
}

// avail makes a head available.
func (r *ring) avail(head uint16) {
	r.t.Helper()
	r.store16(availAt+4+2*uint64(r.idx%r.cfg.Size), head)
	r.idx++
	r.store16(availAt+2, r.idx)
}

// take returns the next used entry.
func (r *ring) take() (id, n uint32, ok bool) {
	r.t.Helper()
	if r.load16(usedAt+2) == r.used {
		return 0, 0, false
	}
	at := usedAt + 4 + 8*uint64(r.used%r.cfg.Size)
	id, err := r.mem.LoadUint32(at)
	if err != nil {
		r.t.Fatal(err)
	}
	n, err = r.mem.LoadUint32(at + 4)
	if err != nil {
		r.t.Fatal(err)
	}
	r.used++
	return id, n, true
}

func (r *ring) usedEvent(v uint16)  { r.store16(availAt+4+2*uint64(r.cfg.Size), v) }
func (r *ring) availEvent() uint16  { return r.load16(usedAt + 4 + 8*uint64(r.cfg.Size)) }
func (r *ring) setFlags(v uint16)   { r.store16(availAt, v) }
func (r *ring) deviceFlags() uint16 { return r.load16(usedAt) }
