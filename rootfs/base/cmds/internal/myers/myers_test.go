package myers

import (
	"slices"
	"testing"
)

func numbers(s string) []int {
	var list []int
	for _, c := range s {
		list = append(list, int(c))
	}
	return list
}

// apply does the edits to a.
func apply(a, b []int, edits []Edit) []int {
	var out []int
	at := 0
	for _, e := range edits {
		out = append(out, a[at:e.A1]...)
		out = append(out, b[e.B1:e.B2]...)
		at = e.A2
	}
	return append(out, a[at:]...)
}

func cost(edits []Edit) (n int) {
	for _, e := range edits {
		n += e.A2 - e.A1 + e.B2 - e.B1
	}
	return n
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		cost int
	}{
		{"", "", 0}, {"abc", "abc", 0}, {"", "ab", 2}, {"ab", "", 2}, {"abc", "axc", 2}, {"abcabba", "cbabac", 5},
		{"abcd", "bcde", 2}, {"xabx", "xbax", 2}, {"aaaa", "aa", 2}, {"abc", "xyz", 6}, {"axbxc", "abc", 2}, {"a", "ba", 1}, {"ab", "b", 1},
	} {
		a, b := numbers(c.a), numbers(c.b)
		edits := Compare(a, b)
		if got := apply(a, b, edits); !slices.Equal(got, b) || cost(edits) != c.cost {
			t.Errorf("%s %s: %v, cost %d, want %d", c.a, c.b, edits, cost(edits), c.cost)
		}
	}
}

func TestCompareFar(t *testing.T) {
	var a, b []int
	for i := range 5000 {
		a, b = append(a, i), append(b, -1-i)
	}
	a, b = append([]int{7}, a...), append([]int{7}, b...)
	if edits := Compare(a, b); len(edits) != 1 || edits[0] != (Edit{1, 5001, 1, 5001}) {
		t.Errorf("%v", edits)
	}
}

func FuzzCompare(f *testing.F) {
	f.Add("abcabba", "cbabac")
	f.Add("aab", "b")
	f.Fuzz(func(t *testing.T, s, u string) {
		a, b := numbers(s), numbers(u)
		if edits := Compare(a, b); !slices.Equal(apply(a, b, edits), b) {
			t.Errorf("%q %q: %v", s, u, edits)
		}
	})
}
