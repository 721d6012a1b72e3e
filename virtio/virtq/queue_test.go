package virtq

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// TestNew has the geometries that must be refused; sizes that are zero or not a
// power of two were CVE-2017-17381.
func TestNew(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *Config)
		want   error
	}{
		{"good", func(*Config) {}, nil},
		{"one entry", func(c *Config) { c.Size = 1 }, nil},
		{"size 0", func(c *Config) { c.Size = 0 }, ErrSize},
		{"size 3", func(c *Config) { c.Size = 3 }, ErrSize},
		{"size 65535", func(c *Config) { c.Size, c.MaxSize = 65535, 65535 }, ErrSize},
		{"over the device's maximum", func(c *Config) { c.Size = 512 }, ErrSize},
		{"maximum above the specification's", func(c *Config) { c.Size, c.MaxSize = 1<<15, 1<<15+1 }, guestmem.ErrOutOfRange},
		{"no maximum", func(c *Config) { c.Size, c.MaxSize = 512, 0 }, nil},
		{"odd descriptor table", func(c *Config) { c.Desc += 8 }, guestmem.ErrMisaligned},
		{"odd driver area", func(c *Config) { c.Driver++ }, guestmem.ErrMisaligned},
		{"odd device area", func(c *Config) { c.Device += 2 }, guestmem.ErrMisaligned},
		{"descriptor table outside", func(c *Config) { c.Desc = 0 }, guestmem.ErrOutOfRange},
		{"descriptor table over the end", func(c *Config) { c.Desc = memBase + memSize - 16 }, guestmem.ErrOutOfRange},
		{"driver area wraps", func(c *Config) { c.Driver = math.MaxUint64 - 1 }, guestmem.ErrOutOfRange},
		{"device area without room for its event", func(c *Config) { c.Device = memBase + memSize - 4 - 8*16 }, guestmem.ErrOutOfRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRing(t, 16)
			tt.change(&r.cfg)
			q, err := New(r.mem, r.cfg)
			if !errors.Is(err, tt.want) || (q != nil) != (tt.want == nil) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

func ptr(gpa uint64, n uint32, flags, next uint16) descriptor {
	return descriptor{addr: gpa, len: n, flags: flags, next: next}
}

const (
	next     = descNext
	write    = descWrite
	indirect = descIndirect
)

// TestChains parses good chains, directly and through a table.
func TestChains(t *testing.T) {
	for _, tt := range []struct {
		name               string
		desc, table        []descriptor
		readable, writable []int // lengths
	}{
		{"one readable", []descriptor{ptr(bufferAt, 5, 0, 9)}, nil, []int{5}, nil},
		{"one writable", []descriptor{ptr(bufferAt, 5, write, 9)}, nil, nil, []int{5}},
		{"both", []descriptor{
			ptr(bufferAt, 1, next, 2), {}, ptr(bufferAt+2, 2, next, 1+2), ptr(bufferAt+9, 3, write, 0),
		}, nil, []int{1, 2}, []int{3}},
		{"neighbours are joined", []descriptor{
			ptr(bufferAt, 1, next, 1), ptr(bufferAt+1, 2, next, 2), ptr(bufferAt+3, 4, next|write, 3), ptr(bufferAt+7, 1, next|write, 4), ptr(bufferAt, 1, write, 0),
		}, nil, []int{3}, []int{5, 1}},
		// CVE-2016-6490: a device looped on descriptors of length zero.
		{"empty ones are dropped", []descriptor{
			ptr(bufferAt, 0, next, 1), ptr(0, 0, next, 2), ptr(bufferAt, 4, next, 3), ptr(math.MaxUint64, 0, write, 0),
		}, nil, []int{4}, nil},
		{"all are empty", []descriptor{ptr(0, 0, next, 1), ptr(0, 0, write, 0)}, nil, nil, nil},
		{"indirect", []descriptor{ptr(tableAt, 48, indirect, 0)}, []descriptor{
			ptr(bufferAt, 1, next, 2), ptr(bufferAt, 2, write, 0), ptr(bufferAt, 3, next, 1),
		}, []int{1, 3}, []int{2}},
		{"indirect at an odd address", []descriptor{ptr(tableAt+3, 16, indirect, 0)}, []descriptor{ptr(bufferAt, 7, 0, 0)}, []int{7}, nil},
		// 2.7.5.3.2: ordinary descriptors may come first, and the write flag of
		// the one that refers to the table is ignored.
		{"indirect behind direct", []descriptor{ptr(bufferAt, 6, next, 1), ptr(tableAt, 16, indirect|write, 0)},
			[]descriptor{ptr(bufferAt, 1, 0, 0)}, []int{6, 1}, nil},
		{"as long as the queue", func() (d []descriptor) {
			for i := range 16 {
				d = append(d, ptr(bufferAt+2*uint64(i), 1, next, uint16(i+1)))
			}
			d[15].flags = 0
			return d
		}(), nil, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRing(t, 16)
			q := r.queue()
			r.put(descAt, tt.desc...)
			at := uint64(tableAt)
			if strings.Contains(tt.name, "odd") {
				at += 3
			}
			r.put(at, tt.table...)
			r.avail(0)
			var c Chain
			ok, err := q.Next(&c)
			if !ok || err != nil {
				t.Fatalf("%t, %v", ok, err)
			}
			lens := func(b Buffers) (n []int) {
				for _, p := range b {
					n = append(n, len(p))
				}
				return n
			}
			if diff := cmp.Diff([][]int{tt.readable, tt.writable}, [][]int{lens(c.Readable), lens(c.Writable)}); diff != "" {
				t.Errorf("lengths (-want +got)\n%s", diff)
			}
			if c.ReadableLen != c.Readable.Len() || c.WritableLen != c.Writable.Len() {
				t.Errorf("sums %d and %d", c.ReadableLen, c.WritableLen)
			}
			if ok, err := q.Next(&c); ok || err != nil {
				t.Errorf("a second chain: %t, %v", ok, err)
			}
		})
	}
}

// TestHostileChains has what a hostile or broken driver may put into a ring. Each
// breaks the queue: Next says so again and again, and gives nothing out.
func TestHostileChains(t *testing.T) {
	loop := func(n int) (d []descriptor) {
		for i := range n {
			d = append(d, ptr(bufferAt, 1, next, uint16((i+1)%n)))
		}
		return d
	}
	big := make([]descriptor, 17)
	for i := range big {
		big[i] = ptr(bufferAt, 1, next, uint16(i+1))
	}
	big[16].flags = 0
	for _, tt := range []struct {
		name        string
		desc, table []descriptor
		change      func(c *Config)
		want        error
	}{
		{"loop of one", loop(1), nil, nil, ErrChainTooLong},
		{"loop of two", loop(2), nil, nil, ErrChainTooLong}, // CVE-2016-6490
		{"loop of all", loop(16), nil, nil, ErrChainTooLong},
		{"next outside the table", []descriptor{ptr(bufferAt, 1, next, 16)}, nil, nil, ErrDescIndex},
		{"next far outside", []descriptor{ptr(bufferAt, 1, next, 65535)}, nil, nil, ErrDescIndex},
		{"readable behind writable", []descriptor{ptr(bufferAt, 1, next|write, 1), ptr(bufferAt, 1, 0, 0)}, nil, nil, ErrOrder},
		{"empty readable behind writable", []descriptor{ptr(bufferAt, 1, next|write, 1), ptr(bufferAt, 0, 0, 0)}, nil, nil, ErrOrder},
		{"buffer outside memory", []descriptor{ptr(0, 1, 0, 0)}, nil, nil, guestmem.ErrOutOfRange},
		{"buffer over the end", []descriptor{ptr(memBase+memSize-1, 2, 0, 0)}, nil, nil, guestmem.ErrOutOfRange},
		{"buffer wraps", []descriptor{ptr(math.MaxUint64, 2, write, 0)}, nil, nil, guestmem.ErrOutOfRange},
		{"buffer of 4 GiB", []descriptor{ptr(bufferAt, math.MaxUint32, 0, 0)}, nil, nil, guestmem.ErrOutOfRange},
		// CVE-2024-3446: a descriptor that points to device registers.
		{"buffer in device registers", []descriptor{ptr(0xd000_0000, 4, write, 0)}, nil, nil, guestmem.ErrOutOfRange},

		{"indirect not negotiated", []descriptor{ptr(tableAt, 16, indirect, 0)}, []descriptor{ptr(bufferAt, 1, 0, 0)},
			func(c *Config) { c.Indirect = false }, ErrIndirect},
		{"indirect and next", []descriptor{ptr(tableAt, 16, indirect|next, 1)}, []descriptor{ptr(bufferAt, 1, 0, 0)}, nil, ErrIndirect},
		{"indirect in indirect", []descriptor{ptr(tableAt, 16, indirect, 0)}, []descriptor{ptr(tableAt, 16, indirect, 0)}, nil, ErrIndirect},
		{"empty table", []descriptor{ptr(tableAt, 0, indirect, 0)}, nil, nil, ErrIndirectTable},
		{"table of 15 bytes", []descriptor{ptr(tableAt, 15, indirect, 0)}, nil, nil, ErrIndirectTable},
		{"table of 17 bytes", []descriptor{ptr(tableAt, 17, indirect, 0)}, nil, nil, ErrIndirectTable},
		{"table larger than the queue", []descriptor{ptr(tableAt, 17*16, indirect, 0)}, big, nil, ErrIndirectTable},
		{"table of 4 GiB", []descriptor{ptr(tableAt, 0xfffffff0, indirect, 0)}, nil, nil, ErrIndirectTable},
		{"table outside memory", []descriptor{ptr(0, 16, indirect, 0)}, nil, nil, guestmem.ErrOutOfRange},
		{"table wraps", []descriptor{ptr(math.MaxUint64-7, 16, indirect, 0)}, nil, nil, guestmem.ErrOutOfRange},
		{"next outside the indirect table", []descriptor{ptr(tableAt, 32, indirect, 0)},
			[]descriptor{ptr(bufferAt, 1, next, 2), ptr(bufferAt, 1, 0, 0)}, nil, ErrDescIndex},
		{"loop in the indirect table", []descriptor{ptr(tableAt, 32, indirect, 0)}, loop(2), nil, ErrChainTooLong},
		{"direct and indirect together too long",
			append(append([]descriptor{}, big[:15]...), ptr(tableAt, 32, indirect, 0)),
			[]descriptor{ptr(bufferAt, 1, next, 1), ptr(bufferAt, 1, 0, 0)}, nil, ErrChainTooLong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRing(t, 16)
			if tt.change != nil {
				tt.change(&r.cfg)
			}
			q := r.queue()
			r.put(descAt, tt.desc...)
			r.put(tableAt, tt.table...)
			r.avail(0)
			c := Chain{Readable: Buffers{{1}}}
			for range 3 {
				ok, err := q.Next(&c)
				var e *Error
				if ok || !errors.Is(err, tt.want) || !errors.As(err, &e) {
					t.Fatalf("%t, %v, want %v", ok, err, tt.want)
				}
				if len(c.Readable) != 0 || len(c.Writable) != 0 {
					t.Error("a broken chain was given out")
				}
				// Repairing the ring does not repair the queue.
				r.put(descAt, ptr(bufferAt, 1, 0, 0))
			}
			if q.Err() == nil || q.EnableNotify() {
				t.Errorf("queue is not broken: %v", q.Err())
			}
		})
	}
}

// TestTotalLength needs memory that a test would not have: one buffer, many times.
func TestTotalLength(t *testing.T) {
	mem, err := guestmem.Allocate(guestmem.Range{GPA: 0, Size: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	r := newRing(t, 16)
	r.mem = mem
	q := r.queue()
	var d []descriptor
	for i := range 5 {
		d = append(d, ptr(0, 1<<30, next, uint16(i+1)))
	}
	d[4].flags = 0
	d[3].flags = 0
	r.put(descAt, d...)
	r.avail(0)
	var c Chain
	if ok, err := q.Next(&c); !ok || err != nil || c.ReadableLen != 1<<32 {
		t.Fatalf("4 GiB: %t, %v, %d", ok, err, c.ReadableLen)
	}
	d[3].flags = next
	r.put(descAt+16, d[1:]...)
	r.put(descAt+16*8, ptr(0, 1<<30, next, 1)) // another head
	r.avail(8)
	if ok, err := q.Next(&c); ok || !errors.Is(err, ErrChainTooBig) {
		t.Fatalf("5 GiB: %t, %v", ok, err)
	}
}

// TestAvailIndex: CVE-2020-13759 was a torn read of this index; a jump that no
// driver can make means that it cannot be believed.
func TestAvailIndex(t *testing.T) {
	for _, tt := range []struct {
		jump uint16
		ok   bool
		want error
	}{
		{0, false, nil}, {1, true, nil}, {16, true, nil}, {17, false, ErrAvailIndex}, {65535, false, ErrAvailIndex},
	} {
		r := newRing(t, 16)
		q := r.queue()
		r.put(descAt, ptr(bufferAt, 1, 0, 0))
		r.store16(availAt+2, tt.jump)
		var c Chain
		if ok, err := q.Next(&c); ok != tt.ok || !errors.Is(err, tt.want) {
			t.Errorf("index %d: %t, %v, want %t, %v", tt.jump, ok, err, tt.ok, tt.want)
		}
	}
}

func TestHeads(t *testing.T) {
	r := newRing(t, 16)
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0), ptr(bufferAt, 1, 0, 0))
	var c Chain
	r.avail(1)
	if ok, err := q.Next(&c); !ok || err != nil || c.Head != 1 {
		t.Fatal(ok, err, c.Head)
	}
	// The same head again, while the device has it: a device that keeps chains
	// would keep more of them than there are.
	r.avail(1)
	if ok, err := q.Next(&c); ok || !errors.Is(err, ErrHeadInUse) {
		t.Errorf("%t, %v, want %v", ok, err, ErrHeadInUse)
	}

	r = newRing(t, 16)
	q = r.queue()
	r.avail(16)
	if ok, err := q.Next(&c); ok || !errors.Is(err, ErrDescIndex) {
		t.Errorf("%t, %v, want %v", ok, err, ErrDescIndex)
	}
}

func TestPush(t *testing.T) {
	r := newRing(t, 4)
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0), ptr(bufferAt, 1, 0, 0))
	var c Chain
	for i := range uint32(70000) { // past the wrap of the index
		head := uint16(i % 2)
		r.avail(head)
		if ok, err := q.Next(&c); !ok || err != nil {
			t.Fatal(i, ok, err)
		}
		if q.InFlight() != 1 {
			t.Fatalf("%d in flight", q.InFlight())
		}
		q.Push(head^1, 99) // not in flight: ignored
		q.Push(7, 99)
		q.Push(head, i)
		id, n, ok := r.take()
		if !ok || id != uint32(head) || n != i {
			t.Fatalf("used %d, %d, %t, want %d, %d", id, n, ok, head, i)
		}
		q.Push(head, 99)
		if _, _, ok := r.take(); ok {
			t.Fatal("a chain was pushed twice")
		}
	}
}

// TestStage returns chains that the driver must not see one by one.
func TestStage(t *testing.T) {
	r := newRing(t, 4)
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0), ptr(bufferAt, 1, 0, 0))
	for i := range uint16(2) {
		r.avail(i)
		if ok, err := q.Next(&Chain{}); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	r.usedEvent(0)
	if !q.Stage(0, 7) || !q.Stage(1, 8) || q.Stage(1, 9) || q.Stage(5, 0) {
		t.Error("Stage took what is not in flight, or did not take what is")
	}
	if _, _, ok := r.take(); ok {
		t.Error("the driver sees what was staged")
	}
	q.Publish()
	for i := range uint32(2) {
		if id, n, ok := r.take(); !ok || id != i || n != 7+i {
			t.Errorf("used %d, %d, %t", id, n, ok)
		}
	}
	if !q.ShouldNotify() {
		t.Error("no interrupt for what was staged")
	}
}

func TestUndo(t *testing.T) {
	r := newRing(t, 4)
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0), ptr(bufferAt, 2, 0, 0))
	r.avail(0)
	r.avail(1)
	var a, b Chain
	for range 3 {
		if ok, err := q.Next(&a); !ok || err != nil || a.Head != 0 {
			t.Fatal(ok, err)
		}
		if ok, err := q.Next(&b); !ok || err != nil || b.Head != 1 {
			t.Fatal(ok, err)
		}
		mustPanic(t, "not the last", func() { q.Undo(&a) })
		q.Undo(&b)
		mustPanic(t, "twice", func() { q.Undo(&b) })
		q.Undo(&a)
		if q.InFlight() != 0 {
			t.Errorf("%d in flight", q.InFlight())
		}
	}
	mustPanic(t, "never taken", func() { q.Undo(&Chain{}) })
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestHalt(t *testing.T) {
	r := newRing(t, 4)
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0))
	r.avail(0)
	q.Halt(true)
	var c Chain
	if ok, err := q.Next(&c); ok || err != nil {
		t.Errorf("a halted queue gave a chain: %t, %v", ok, err)
	}
	if q.EnableNotify() {
		t.Error("a halted queue has more")
	}
	q.Halt(false)
	if ok, err := q.Next(&c); !ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
}

func TestNotifyFlags(t *testing.T) {
	r := newRing(t, 8)
	r.cfg.EventIdx = false
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0))
	var c Chain
	step := func() {
		t.Helper()
		r.avail(0)
		if ok, err := q.Next(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		q.Push(0, 0)
	}
	if q.ShouldNotify() {
		t.Error("notify for nothing")
	}
	step()
	if !q.ShouldNotify() || q.ShouldNotify() {
		t.Error("want one notification for one chain")
	}
	r.setFlags(availNoInterrupt)
	step()
	if q.ShouldNotify() {
		t.Error("notify against NO_INTERRUPT")
	}
	r.setFlags(0)
	if q.ShouldNotify() {
		t.Error("notify for what was decided already")
	}
	q.DisableNotify()
	if r.deviceFlags() != usedNoNotify {
		t.Error("kicks are not suppressed")
	}
	step() // publishes the index in the same word
	if r.deviceFlags() != usedNoNotify {
		t.Error("Push lost the flag")
	}
	if q.EnableNotify() || r.deviceFlags() != 0 {
		t.Error("kicks are not enabled")
	}
	r.avail(0)
	if !q.EnableNotify() {
		t.Error("a chain that came meanwhile was not seen")
	}
}

// TestEventIdx checks 2.7.7.2 and 2.7.10.1, across the wrap of the indices.
func TestEventIdx(t *testing.T) {
	r := newRing(t, 8)
	q := r.queue()
	d := make([]descriptor, 8)
	for i := range d {
		d[i] = ptr(bufferAt, 1, 0, 0)
	}
	r.put(descAt, d...)
	var c Chain
	used := uint16(0)
	push := func(n int) {
		t.Helper()
		for i := range n {
			r.avail(uint16(i))
			if ok, err := q.Next(&c); !ok || err != nil {
				t.Fatal(ok, err)
			}
			q.Push(c.Head, 0)
			used++
		}
	}
	for used < 65530 {
		push(1)
		r.usedEvent(used - 1)
		if !q.ShouldNotify() {
			t.Fatalf("no notification at %d", used)
		}
	}
	for _, tt := range []struct {
		event int // relative to the used index before the pushes
		n     int
		want  bool
	}{
		{0, 1, true}, {1, 1, false}, {-1, 1, false}, {2, 3, true}, {3, 3, false}, {0, 8, true}, {7, 8, true},
		{8, 8, false}, {-1, 8, false}, {100, 8, false}, {0, 1, true},
	} {
		r.usedEvent(used + uint16(tt.event))
		at := used
		push(tt.n)
		if got := q.ShouldNotify(); got != tt.want {
			t.Errorf("event %+d of %d, %d pushed: %t, want %t", tt.event, at, tt.n, got, tt.want)
		}
	}
	if used > 1000 {
		t.Errorf("the index did not wrap: %d", used)
	}

	// The device's own event: set when it has drained, untouched while it drains.
	before := r.availEvent()
	q.DisableNotify()
	push(3)
	if r.availEvent() != before || r.deviceFlags() != 0 {
		t.Error("draining asked for kicks")
	}
	if q.EnableNotify() || r.availEvent() != used {
		t.Errorf("event %d, want %d", r.availEvent(), used)
	}
	r.avail(0)
	if !q.EnableNotify() {
		t.Error("a chain that came meanwhile was not seen")
	}
}

// TestEventIdxRound pushes more than an index can tell between two decisions.
func TestEventIdxRound(t *testing.T) {
	r := newRing(t, 1)
	q := r.queue()
	r.put(descAt, ptr(bufferAt, 1, 0, 0))
	r.usedEvent(5)
	var c Chain
	for range 1 << 16 {
		r.avail(0)
		if ok, err := q.Next(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		q.Push(0, 0)
	}
	if !q.ShouldNotify() {
		t.Error("the index went round over the event and nobody was told")
	}
}

func TestBuffers(t *testing.T) {
	mk := func() Buffers { return Buffers{[]byte("abc"), []byte("d"), []byte("efgh")} }
	if n := mk().Len(); n != 8 {
		t.Error(n)
	}
	for off := range uint64(10) {
		for n := range 10 {
			p := make([]byte, n)
			got := string(p[:mk().CopyTo(p, off)])
			want := "abcdefgh"[min(off, 8):min(off+uint64(n), 8)]
			if got != want {
				t.Errorf("CopyTo(%d, %d) = %q, want %q", n, off, got, want)
			}
			b := mk()
			wrote := b.CopyFrom([]byte("ABCDEFGHIJ")[:n], off)
			all := make([]byte, 8)
			b.CopyTo(all, 0)
			wantAll := "abcdefgh"[:min(off, 8)] + "ABCDEFGH"[:wrote] + "abcdefgh"[min(off, 8)+uint64(wrote):]
			if string(all) != wantAll || wrote != len(want) {
				t.Errorf("CopyFrom(%d, %d) = %q, %d, want %q", n, off, all, wrote, wantAll)
			}
		}
		b := mk().Skip(off)
		p := make([]byte, 8)
		if got := string(p[:b.CopyTo(p, 0)]); got != "abcdefgh"[min(off, 8):] {
			t.Errorf("Skip(%d) = %q", off, got)
		}
	}
}

// TestChainReuse: a device that used Skip gets whole chains again, and nothing is
// allocated for a chain.
func TestChainReuse(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		t.Run(fmt.Sprint("event_idx=", eventIdx), func(t *testing.T) {
			r := newRing(t, 8)
			r.cfg.EventIdx = eventIdx
			q := r.queue()
			r.put(descAt, ptr(tableAt, 64, indirect, 0))
			r.put(tableAt, ptr(bufferAt, 10, next, 1), ptr(bufferAt+10, 10, next, 2),
				ptr(bufferAt+20, 10, next|write, 3), ptr(bufferAt+30, 10, write, 0))
			var c Chain
			round := func() {
				r.avail(0)
				q.DisableNotify()
				ok, err := q.Next(&c)
				if !ok || err != nil || c.Readable.Len() != 20 || c.Writable.Len() != 20 {
					t.Fatal(ok, err, c.Readable.Len(), c.Writable.Len())
				}
				c.Readable = c.Readable.Skip(15)
				c.Writable = c.Writable.Skip(10)
				q.Push(c.Head, 1)
				q.ShouldNotify()
				q.EnableNotify()
			}
			round()
			if n := testing.AllocsPerRun(200, round); n != 0 {
				t.Errorf("%v allocations for a chain", n)
			}
		})
	}
}

func BenchmarkChain(b *testing.B) {
	r := newRing(b, 256)
	q := r.queue()
	r.put(descAt, ptr(tableAt, 48, indirect, 0))
	r.put(tableAt, ptr(bufferAt, 16, next, 1), ptr(bufferAt+16, 4096, next|write, 2), ptr(bufferAt+8192, 1, write, 0))
	var c Chain
	b.ReportAllocs()
	for b.Loop() {
		// As ring.avail, without its calls of Helper, which cost more.
		_ = r.mem.StoreUint16(availAt+4+2*uint64(r.idx%256), 0)
		r.idx++
		_ = r.mem.StoreUint16(availAt+2, r.idx)
		if ok, err := q.Next(&c); !ok || err != nil {
			b.Fatal(ok, err)
		}
		q.Push(c.Head, 1)
		q.ShouldNotify()
	}
}
