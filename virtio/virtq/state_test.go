package virtq

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStateRoundTrip(t *testing.T) {
	r := newRing(t, 16)
	q := r.queue()
	d := make([]descriptor, 16)
	for i := range d {
		d[i] = ptr(bufferAt+uint64(i), 1, 0, 0)
	}
	r.put(descAt, d...)
	var c Chain
	for _, head := range []uint16{3, 9, 1} {
		r.avail(head)
		if ok, err := q.Next(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	q.Push(9, 5)
	r.avail(9) // available, and not yet taken
	want := State{NextAvail: 3, NextUsed: 1, Unsaid: 1, InFlight: []uint16{1, 3}}
	b, err := json.Marshal(q.State())
	if err != nil {
		t.Fatal(err)
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, st); diff != "" {
		t.Fatalf("(-want +got)\n%s", diff)
	}

	q = r.queue()
	if err := q.Restore(st); err != nil {
		t.Fatal(err)
	}
	if q.InFlight() != 2 {
		t.Errorf("%d in flight", q.InFlight())
	}
	// What a device held can be found again.
	if err := q.Reload(3, &c); err != nil || c.Head != 3 || c.ReadableLen != 1 {
		t.Errorf("reload: %v, %+v", err, c)
	}
	mustPanic(t, "undo of a reloaded chain", func() { q.Undo(&c) })
	for _, head := range []uint16{9, 16, 65535} {
		if err := q.Reload(head, &c); !errors.Is(err, ErrState) {
			t.Errorf("reload of head %d, which is not held: %v", head, err)
		}
	}
	if ok, err := q.Next(&c); !ok || err != nil || c.Head != 9 {
		t.Errorf("next: %t, %v, head %d", ok, err, c.Head)
	}
	for _, head := range []uint16{1, 3, 9} {
		q.Push(head, 0)
	}
	if got := r.load16(usedAt + 2); got != 4 {
		t.Errorf("used index %d, want 4", got)
	}
	if !q.ShouldNotify() {
		t.Error("the push before the save was forgotten")
	}
}

// TestRestoreHostile: CVE-2013-4150 and its kin were indices of a saved queue that
// nobody checked.
func TestRestoreHostile(t *testing.T) {
	heads := make([]uint16, 17)
	for i := range heads {
		heads[i] = uint16(i)
	}
	for _, st := range []State{
		{NextAvail: 1},
		{NextUsed: 1},
		{NextAvail: 17, InFlight: heads},
		{NextAvail: 1, InFlight: []uint16{16}},
		{NextAvail: 1, InFlight: []uint16{65535}},
		{NextAvail: 2, InFlight: []uint16{3, 3}},
		{NextAvail: 2, InFlight: []uint16{4, 3}},
		{NextAvail: 65535, InFlight: []uint16{1}},
		{Unsaid: 1},
		{Unsaid: 1<<16 + 1},
		{Signalled: 5},
	} {
		r := newRing(t, 16)
		q := r.queue()
		if err := q.Restore(st); !errors.Is(err, ErrState) {
			t.Errorf("%+v: %v, want %v", st, err, ErrState)
		}
		if diff := cmp.Diff(State{}, q.State()); diff != "" {
			t.Errorf("%+v was refused and changed the queue:\n%s", st, diff)
		}
	}
	q := newRing(t, 16).queue()
	if err := q.Restore(State{NextAvail: 7, NextUsed: 7, Signalled: 7, Unsaid: 1 << 16}); err != nil {
		t.Errorf("a saturated count: %v", err)
	}
}
