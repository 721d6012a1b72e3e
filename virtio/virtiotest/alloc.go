package virtiotest

import "sort"

// extent is a free piece of guest memory, end excluded.
type extent struct{ from, to uint64 }

// allocator hands out guest memory, first fit. free is sorted.
type allocator struct{ free []extent }

func (a *allocator) get(n, align uint64) (uint64, bool) {
	for i, e := range a.free {
		at := (e.from + align - 1) / align * align
		if at+n > e.to {
			continue
		}
		rest := append([]extent(nil), a.free[:i]...)
		if at > e.from {
			rest = append(rest, extent{e.from, at})
		}
		if at+n < e.to {
			rest = append(rest, extent{at + n, e.to})
		}
		a.free = append(rest, a.free[i+1:]...)
		return at, true
	}
	return 0, false
}

func (a *allocator) put(at, n uint64) {
	if n == 0 {
		return
	}
	a.free = append(a.free, extent{at, at + n})
	sort.Slice(a.free, func(i, j int) bool { return a.free[i].from < a.free[j].from })
	out := a.free[:1]
	for _, e := range a.free[1:] {
		if last := &out[len(out)-1]; e.from == last.to {
			last.to = e.to
		} else {
			out = append(out, e)
		}
	}
	a.free = out
}

// Alloc takes n bytes of guest memory, aligned to a page, for the test's own use.
func (d *Driver) Alloc(n int) uint64 {
	d.TB.Helper()
	at, ok := d.alloc.get(uint64(n), 4096)
	if !ok {
		d.TB.Fatalf("no %d bytes of guest memory left", n)
	}
	return at
}
