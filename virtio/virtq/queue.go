// Package virtq is the device side of the split virtqueue (Virtio 1.2, 2.7),
// with indirect descriptors and EVENT_IDX.
//
// The driver that fills the rings is hostile: every number is read once, checked
// and then used. A ring that breaks the rules stays broken until the device is
// reset, and costs the host neither memory nor time that the guest could choose.
// Nothing is allocated for a chain once its Chain has grown to the usual size.
package virtq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// MaxSize is the largest ring that the specification allows (2.7).
const MaxSize = 1 << 15

// maxChainBytes bounds the buffers of one chain (2.7.5.2: "a driver must not
// add a descriptor chain longer than 2^32 bytes in total").
const maxChainBytes = 1 << 32

// Layout and flags of the rings (2.7.5, 2.7.6, 2.7.8).
const (
	descSize = 16

	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	availNoInterrupt = 1
	usedNoNotify     = 1

	ringFlags = 0
	ringIdx   = 2
	ringElems = 4
)

// What can be wrong with a ring. Queue.Next wraps one of them in an *Error.
var (
	ErrSize          = errors.New("queue size is zero, not a power of two, or over the maximum")
	ErrAvailIndex    = errors.New("available index moved by more than the queue size")
	ErrHeadInUse     = errors.New("descriptor chain is made available while the device still has it")
	ErrDescIndex     = errors.New("descriptor index outside its table")
	ErrChainTooLong  = errors.New("descriptor chain is longer than the queue or loops")
	ErrChainTooBig   = errors.New("descriptor chain describes more than 4 GiB")
	ErrOrder         = errors.New("device-readable descriptor behind a writable one")
	ErrIndirect      = errors.New("indirect descriptor where none may be")
	ErrIndirectTable = errors.New("indirect table has a bad length")
	ErrState         = errors.New("saved queue state is inconsistent")
)

// Error is the error type of this package. Err is one of the sentinels above, or
// guestmem's ErrOutOfRange and ErrMisaligned.
type Error struct {
	Op  string // "new", "next", "reload", "restore"
	Err error
}

// Error names the rule that was broken.
func (e *Error) Error() string { return fmt.Sprintf("virtq: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Config is what the driver told the transport about a queue.
type Config struct {
	Size    uint16 // entries of each of the rings; a power of two
	MaxSize uint16 // the device's own limit; 0 means the specification's
	Desc    uint64 // guest physical address of the descriptor table
	Driver  uint64 // ... of the driver area (available ring)
	Device  uint64 // ... of the device area (used ring)

	EventIdx bool // VIRTIO_F_EVENT_IDX was negotiated
	Indirect bool // VIRTIO_F_INDIRECT_DESC was negotiated
}

// Queue is one split virtqueue. It is not safe for concurrent use: a device calls
// it from HandleQueue of that queue, or guards it with a lock of its own. Halt is
// the exception.
type Queue struct {
	mem   *guestmem.Memory
	cfg   Config
	desc  []byte
	avail guestmem.Window
	used  guestmem.Window

	nextAvail uint16 // the next entry of the available ring to take
	nextUsed  uint16 // our used index
	noNotify  bool   // kicks are suppressed in the used ring's flags

	// For ShouldNotify: what was pushed since the last time it said something.
	signalled uint16 // nextUsed at that time
	unsaid    uint32 // pushes since, saturating above what indices can tell

	inFlight []uint64 // a bit for each head that was taken and not pushed
	flying   int      // how many bits of it are set

	halted atomic.Bool
	broken error
}

// New checks the geometry of a queue and opens its rings. It allocates at most
// 4 KiB, whatever cfg says.
func New(mem *guestmem.Memory, cfg Config) (*Queue, error) {
	limit := cfg.MaxSize
	if limit == 0 || limit > MaxSize {
		limit = MaxSize
	}
	if cfg.Size == 0 || cfg.Size&(cfg.Size-1) != 0 || cfg.Size > limit {
		return nil, &Error{"new", fmt.Errorf("size %d, maximum %d: %w", cfg.Size, limit, ErrSize)}
	}
	n := uint64(cfg.Size)
	desc, err := mem.Window(cfg.Desc, descSize*n, 8)
	if err == nil && cfg.Desc%descSize != 0 {
		err = guestmem.ErrMisaligned
	}
	if err != nil {
		return nil, &Error{"new", fmt.Errorf("descriptor table: %w", err)}
	}
	// Both rings end with a 16-bit event field, used or not.
	avail, err := mem.Window(cfg.Driver, ringElems+2*n+2, 2)
	if err != nil {
		return nil, &Error{"new", fmt.Errorf("driver area: %w", err)}
	}
	used, err := mem.Window(cfg.Device, ringElems+8*n+2, 4)
	if err != nil {
		return nil, &Error{"new", fmt.Errorf("device area: %w", err)}
	}
	return &Queue{
		mem:      mem,
		cfg:      cfg,
		desc:     desc.Bytes(),
		avail:    avail,
		used:     used,
		inFlight: make([]uint64, (n+63)/64),
	}, nil
}

// Size is the number of entries of the queue.
func (q *Queue) Size() int { return int(q.cfg.Size) }

// Err is the reason why the queue is broken, or nil.
func (q *Queue) Err() error { return q.broken }

// InFlight is the number of chains that were taken and not yet pushed.
func (q *Queue) InFlight() int { return q.flying }

// Halt makes Next report an empty queue until Halt(false), so that a device which
// serves a queue until it is empty ends soon even if the guest keeps filling it.
// The transport calls it to pause and to reset. Safe for concurrent use.
func (q *Queue) Halt(on bool) { q.halted.Store(on) }

func (q *Queue) fail(op string, err error) error {
	q.broken = &Error{op, err}
	return q.broken
}

// Next takes the next available chain and parses it into c, whose slices are
// reused. It reports false when there is none. After an error the queue is broken
// for good: the device must return the error, and the transport asks for a reset.
func (q *Queue) Next(c *Chain) (bool, error) {
	c.reset()
	if q.broken != nil {
		return false, q.broken
	}
	if q.halted.Load() {
		return false, nil
	}
	// One atomic load: a torn index would make entries up (CVE-2020-13759).
	n := q.avail.Load16(ringIdx) - q.nextAvail
	if n == 0 {
		return false, nil
	}
	if n > q.cfg.Size {
		return false, q.fail("next", ErrAvailIndex)
	}
	head := q.avail.Load16(ringElems + 2*int(q.nextAvail&(q.cfg.Size-1)))
	if head >= q.cfg.Size {
		return false, q.fail("next", ErrDescIndex)
	}
	// Without this a guest could make a device hold more chains than there are.
	if q.isFlying(head) {
		return false, q.fail("next", ErrHeadInUse)
	}
	if err := q.walk(head, c); err != nil {
		c.reset()
		return false, q.fail("next", err)
	}
	c.pos = int32(q.nextAvail)
	q.nextAvail++
	q.setFlying(head, true)
	return true, nil
}

// Pending reports whether the driver has made more available than was taken.
func (q *Queue) Pending() bool {
	return q.broken == nil && !q.halted.Load() && q.avail.Load16(ringIdx) != q.nextAvail
}

// Undo puts the chain that the last Next returned back, so that Next returns it
// again: for a device that finds that it cannot use it yet. Several are put back
// in the reverse order of their taking. It panics when c is not the last one.
func (q *Queue) Undo(c *Chain) {
	if c.pos != int32(q.nextAvail-1) || !q.isFlying(c.Head) {
		panic("virtq: Undo of a chain that is not the last one taken")
	}
	q.nextAvail--
	q.setFlying(c.Head, false)
	c.reset()
}

// Reload parses the chain at head again, which was taken before and is still in
// flight: for a device that held it when its state was saved.
func (q *Queue) Reload(head uint16, c *Chain) error {
	c.reset()
	if q.broken != nil {
		return q.broken
	}
	if head >= q.cfg.Size || !q.isFlying(head) {
		return &Error{"reload", ErrState}
	}
	if err := q.walk(head, c); err != nil {
		c.reset()
		return q.fail("reload", err)
	}
	return nil
}

// Push gives the chain that begins at head back to the driver, with the number of
// bytes that were written to its writable part. A head that is not in flight is
// ignored. Ask ShouldNotify after the last Push of a batch.
func (q *Queue) Push(head uint16, written uint32) {
	if q.Stage(head, written) {
		q.publish()
	}
}

// Stage is a Push that the driver does not see before the next Publish or Push:
// for chains that the driver must find together, such as the pieces of one
// received frame. It reports false for a head that is not in flight, which is
// ignored. What is staged must be published before the queue's state is saved.
func (q *Queue) Stage(head uint16, written uint32) bool {
	if head >= q.cfg.Size || !q.isFlying(head) {
		return false
	}
	q.setFlying(head, false)
	at := ringElems + 8*int(q.nextUsed&(q.cfg.Size-1))
	q.used.Store32(at, uint32(head))
	q.used.Store32(at+4, written)
	q.nextUsed++
	q.unsaid = min(q.unsaid+1, 1<<16)
	return true
}

// Publish shows the driver all chains that were staged, at once.
func (q *Queue) Publish() { q.publish() }

// publish stores our index and our flags, which share a word that is only ours.
// The store is a full barrier: the element is visible before it, and what
// ShouldNotify reads is read after it (2.7.7.2, 2.7.13.4.1).
func (q *Queue) publish() {
	v := uint32(q.nextUsed) << 16
	if q.noNotify {
		v |= usedNoNotify
	}
	q.used.Store32(ringFlags, v)
}

// ShouldNotify reports whether the driver wants an interrupt for what was pushed
// since the last call.
func (q *Queue) ShouldNotify() bool {
	pushed := q.unsaid
	if pushed == 0 {
		return false
	}
	old := q.signalled
	q.signalled, q.unsaid = q.nextUsed, 0
	if !q.cfg.EventIdx {
		return q.avail.Load16(ringFlags)&availNoInterrupt == 0
	}
	if pushed >= 1<<16 {
		// The index went round: the driver's event was passed for sure.
		return true
	}
	event := q.avail.Load16(ringElems + 2*int(q.cfg.Size))
	// 2.7.7.2: did the index step over event in (old, nextUsed]?
	return q.nextUsed-event-1 < q.nextUsed-old
}

// DisableNotify asks the driver not to kick while the queue is being drained. It
// is a hint only.
func (q *Queue) DisableNotify() {
	// With EVENT_IDX the flag must stay 0 (2.7.7); an event index that is left
	// behind has the same effect.
	if !q.cfg.EventIdx && !q.noNotify {
		q.noNotify = true
		q.publish()
	}
}

// EnableNotify asks for a kick when the driver adds the next buffer, and reports
// whether it already has: then the queue must be drained again, since no kick
// will come for that.
func (q *Queue) EnableNotify() (more bool) {
	if q.cfg.EventIdx {
		// A full barrier, so the index below is read after it is visible.
		q.used.Store16(ringElems+8*int(q.cfg.Size), q.nextAvail)
	} else if q.noNotify {
		q.noNotify = false
		q.publish()
	}
	if q.broken != nil || q.halted.Load() {
		return false
	}
	return q.avail.Load16(ringIdx) != q.nextAvail
}

func (q *Queue) isFlying(head uint16) bool { return q.inFlight[head/64]>>(head%64)&1 != 0 }

func (q *Queue) setFlying(head uint16, on bool) {
	if on {
		q.inFlight[head/64] |= 1 << (head % 64)
		q.flying++
	} else {
		q.inFlight[head/64] &^= 1 << (head % 64)
		q.flying--
	}
}

// descriptor is a host copy of one entry of a table.
type descriptor struct {
	addr        uint64
	len         uint32
	flags, next uint16
}

// readDesc copies the descriptor out once, so that nothing is checked in one
// version and used in another.
func readDesc(table []byte, i uint32) descriptor {
	var b [descSize]byte
	copy(b[:], table[int(i)*descSize:])
	return descriptor{
		addr:  binary.LittleEndian.Uint64(b[0:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}
}

// walk parses the chain that begins at head (2.7.5, 2.7.5.3).
func (q *Queue) walk(head uint16, c *Chain) error {
	table, entries := q.desc, uint32(q.cfg.Size)
	i := uint32(head)
	inTable, writable := false, false
	var last piece
	for count := uint32(0); ; {
		if i >= entries {
			return ErrDescIndex
		}
		d := readDesc(table, i)
		if d.flags&descIndirect != 0 {
			if !q.cfg.Indirect || inTable || d.flags&descNext != 0 {
				return ErrIndirect
			}
			if d.len == 0 || d.len%descSize != 0 || d.len/descSize > uint32(q.cfg.Size) {
				return ErrIndirectTable
			}
			var err error
			if table, err = q.mem.Slice(d.addr, uint64(d.len)); err != nil {
				return err
			}
			entries, i, inTable = d.len/descSize, 0, true
			continue
		}
		if count++; count > uint32(q.cfg.Size) {
			return ErrChainTooLong
		}
		if d.flags&descWrite != 0 {
			writable = true
		} else if writable {
			return ErrOrder
		}
		if d.len > 0 {
			if c.ReadableLen+c.WritableLen+uint64(d.len) > maxChainBytes {
				return ErrChainTooBig
			}
			list, total := &c.Readable, &c.ReadableLen
			if writable {
				list, total = &c.Writable, &c.WritableLen
			}
			if err := q.addPiece(list, &last, d); err != nil {
				return err
			}
			*total += uint64(d.len)
		}
		if d.flags&descNext == 0 {
			c.Head = head
			c.readable0, c.writable0 = c.Readable, c.Writable
			return nil
		}
		i = uint32(d.next)
	}
}

// piece is the run of guest memory that was added last.
type piece struct {
	addr, len uint64
	list      *Buffers
}

// addPiece adds a descriptor's memory to the list. Drivers describe a buffer page by
// page; what follows the piece before without a gap makes that one longer, so
// that devices have few pieces to deal with.
func (q *Queue) addPiece(list *Buffers, last *piece, d descriptor) error {
	if last.list == list && d.addr == last.addr+last.len {
		if b, err := q.mem.Slice(last.addr, last.len+uint64(d.len)); err == nil {
			(*list)[len(*list)-1] = b
			last.len += uint64(d.len)
			return nil
		} // the end of a region
	}
	b, err := q.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return err
	}
	*list = append(*list, b)
	*last = piece{d.addr, uint64(d.len), list}
	return nil
}
