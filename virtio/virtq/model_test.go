package virtq

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// request is a chain in the reference model: lengths of its buffers.
type request struct {
	Head               uint16
	Readable, Writable []int
}

// TestModel drives a queue with random but correct operations, and compares it with
// a model that is too simple to be wrong: lists, and a loop over every index for
// the question whether an event was passed.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := uint16(1) << rapid.IntRange(0, 5).Draw(rt, "log2 size")
		r := newRing(t, size)
		r.cfg.EventIdx = rapid.Bool().Draw(rt, "event idx")
		q := r.queue()
		start := uint16(rapid.SampledFrom([]int{0, 65530, 32766}).Draw(rt, "start"))
		if err := q.Restore(State{NextAvail: start, NextUsed: start, Signalled: start}); err != nil {
			rt.Fatal(err)
		}
		r.idx, r.used = start, start
		r.store16(availAt+2, start)
		r.store16(usedAt+2, start)

		free := make([]uint16, size)
		for i := range free {
			free[i] = uint16(i)
		}
		var added []request // available, not taken
		var held []request  // taken, not pushed
		type pushed struct{ id, n uint32 }
		var done []pushed   // pushed, not taken by the driver
		var unsaid []uint16 // values of the used index before each push since the last decision
		event, noIrq := start, false
		r.usedEvent(event)

		takeFree := func() uint16 {
			i := rapid.IntRange(0, len(free)-1).Draw(rt, "descriptor")
			d := free[i]
			free = slices.Delete(free, i, i+1)
			return d
		}
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				if len(free) == 0 {
					rt.Skip("ring is full")
				}
				n := rapid.IntRange(1, int(size)).Draw(rt, "descriptors")
				w := rapid.IntRange(0, n).Draw(rt, "writable ones")
				req := request{}
				var descs []descriptor
				for i := range n {
					l := rapid.IntRange(0, 40).Draw(rt, "length")
					var flags uint16
					if i >= n-w {
						flags = write
						if l > 0 {
							req.Writable = append(req.Writable, l)
						}
					} else if l > 0 {
						req.Readable = append(req.Readable, l)
					}
					descs = append(descs, ptr(bufferAt+64*uint64(i), uint32(l), flags, 0))
				}
				if n > len(free) || rapid.Bool().Draw(rt, "indirect") {
					req.Head = takeFree()
					for i := range n - 1 {
						descs[i].flags |= next
						descs[i].next = uint16(i + 1)
					}
					at := tableAt + uint64(req.Head)*16*32
					r.put(at, descs...)
					r.put(descAt+16*uint64(req.Head), ptr(at, uint32(16*n), indirect, 0))
				} else {
					at := make([]uint16, n)
					for i := range at {
						at[i] = takeFree()
					}
					req.Head = at[0]
					for i := range n {
						if i+1 < n {
							descs[i].flags |= next
							descs[i].next = at[i+1]
						}
						r.put(descAt+16*uint64(at[i]), descs[i])
					}
					// The model keeps one descriptor a request; the others are
					// free again when the device has parsed the chain, which
					// no driver would do, but no device may notice.
					free = append(free, at[1:]...)
					r.avail(req.Head)
					var c Chain
					for range added {
						if ok, err := q.Next(&c); !ok || err != nil {
							rt.Fatal(ok, err)
						}
						held = append(held, added[0])
						added = added[1:]
					}
					if ok, err := q.Next(&c); !ok || err != nil {
						rt.Fatal(ok, err)
					}
					check(rt, req, &c)
					held = append(held, req)
					return
				}
				r.avail(req.Head)
				added = append(added, req)
			},
			"next": func(rt *rapid.T) {
				var c Chain
				ok, err := q.Next(&c)
				if err != nil || ok != (len(added) > 0) {
					rt.Fatalf("next: %t, %v, model has %d", ok, err, len(added))
				}
				if !ok {
					return
				}
				check(rt, added[0], &c)
				if rapid.Bool().Draw(rt, "undo") {
					q.Undo(&c)
					return
				}
				held = append(held, added[0])
				added = added[1:]
			},
			"push": func(rt *rapid.T) {
				if len(held) == 0 {
					rt.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
				n := rapid.Uint32().Draw(rt, "written")
				unsaid = append(unsaid, r.load16(usedAt+2))
				q.Push(held[i].Head, n)
				done = append(done, pushed{uint32(held[i].Head), n})
				held = slices.Delete(held, i, i+1)
			},
			"reap": func(rt *rapid.T) {
				id, n, ok := r.take()
				if ok != (len(done) > 0) {
					rt.Fatalf("used: %t, model has %d", ok, len(done))
				}
				if !ok {
					return
				}
				if got := (pushed{id, n}); got != done[0] {
					rt.Fatalf("used %+v, want %+v", got, done[0])
				}
				done = done[1:]
				free = append(free, uint16(id))
			},
			"driver wants interrupts": func(rt *rapid.T) {
				noIrq = rapid.Bool().Draw(rt, "flag")
				event = r.used + uint16(rapid.IntRange(-2, int(size)).Draw(rt, "event"))
				r.usedEvent(event)
				r.setFlags(0)
				if noIrq {
					r.setFlags(availNoInterrupt)
				}
			},
			"notify": func(rt *rapid.T) {
				want := false
				if r.cfg.EventIdx {
					want = slices.Contains(unsaid, event)
				} else {
					want = len(unsaid) > 0 && !noIrq
				}
				if got := q.ShouldNotify(); got != want {
					rt.Fatalf("notify %t, want %t (pushed at %v, event %d)", got, want, unsaid, event)
				}
				unsaid = nil
			},
			"drain": func(rt *rapid.T) {
				q.DisableNotify()
				if !r.cfg.EventIdx && r.deviceFlags() != usedNoNotify {
					rt.Fatal("kicks are not suppressed")
				}
				if more := q.EnableNotify(); more != (len(added) > 0) {
					rt.Fatalf("more %t, model has %d", more, len(added))
				}
				if r.deviceFlags() != 0 {
					rt.Fatal("kicks stay suppressed")
				}
				if r.cfg.EventIdx && r.availEvent() != r.idx-uint16(len(added)) {
					rt.Fatalf("event %d", r.availEvent())
				}
			},
			"save": func(rt *rapid.T) {
				st := q.State()
				q = r.queue()
				if err := q.Restore(st); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				if q.InFlight() != len(held) || q.Err() != nil {
					rt.Fatalf("%d in flight, model has %d; %v", q.InFlight(), len(held), q.Err())
				}
			},
		})
	})
}

func check(rt *rapid.T, want request, c *Chain) {
	got := request{Head: c.Head}
	for _, b := range c.Readable {
		got.Readable = append(got.Readable, len(b))
	}
	for _, b := range c.Writable {
		got.Writable = append(got.Writable, len(b))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("chain (-want +got)\n%s", diff)
	}
}
