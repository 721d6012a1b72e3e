// Package myers compares sequences of lines.
package myers

// Edit is a range of each sequence: those of a are replaced by those of b. One
// of the two may be empty. Indexes count from 0, ends are exclusive.
type Edit struct{ A1, A2, B1, B2 int }

// maxCost bounds the work and the memory, of some 70 MB: sequences that differ
// in more lines are taken to differ wholly where they are not the same at their
// ends.
const maxCost = 4000

// Compare returns the edits that turn a into b, in order, with at least one
// common element between two of them. They are as few elements as possible, by
// E. Myers' greedy algorithm (1986).
func Compare(a, b []int) []Edit {
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	enda, endb := len(a), len(b)
	for enda > start && endb > start && a[enda-1] == b[endb-1] {
		enda--
		endb--
	}
	if start == enda && start == endb {
		return nil
	}
	edits := middle(a[start:enda], b[start:endb])
	for i := range edits {
		edits[i].A1 += start
		edits[i].A2 += start
		edits[i].B1 += start
		edits[i].B2 += start
	}
	return edits
}

func middle(a, b []int) []Edit {
	whole := []Edit{{0, len(a), 0, len(b)}}
	if len(a) == 0 || len(b) == 0 {
		return whole
	}
	// reach[d][k+d] is how far into a the diagonal k gets with d edits.
	var reach [][]int32
	at := func(d, k int) int {
		if d < 0 || k < -d || k > d {
			return -1
		}
		return int(reach[d][k+d])
	}
	// step is the best way to diagonal k with one edit more: down inserts an
	// element of b, else one of a is deleted.
	step := func(d, k int) (x int, down bool) {
		if d == 0 {
			return 0, false
		}
		if above, left := at(d-1, k+1), at(d-1, k-1); k == -d || k != d && left < above {
			return above, true
		} else {
			return left + 1, false
		}
	}
	for d := 0; d <= min(len(a)+len(b), maxCost); d++ {
		reach = append(reach, make([]int32, 2*d+1))
		for k := -d; k <= d; k += 2 {
			x, _ := step(d, k)
			if x < 0 || x > len(a) || x-k > len(b) {
				// Off the board: nothing may go on from here.
				reach[d][k+d] = int32(min(x, len(a)+1))
				continue
			}
			for x < len(a) && x-k < len(b) && a[x] == b[x-k] {
				x++
			}
			reach[d][k+d] = int32(x)
			if x == len(a) && x-k == len(b) {
				return back(step, d, len(a), len(b))
			}
		}
	}
	return whole
}

// back follows the way from the end and joins edits that touch.
func back(step func(d, k int) (int, bool), d, x, y int) []Edit {
	var edits []Edit // last first
	for ; d > 0; d-- {
		k := x - y
		to, down := step(d, k)
		e := Edit{to, to, to - k, to - k}
		if down {
			e.B1--
		} else {
			e.A1--
		}
		if n := len(edits); n > 0 && edits[n-1].A1 == e.A2 && edits[n-1].B1 == e.B2 {
			edits[n-1].A1, edits[n-1].B1 = e.A1, e.B1
		} else {
			edits = append(edits, e)
		}
		x, y = e.A1, e.B1
	}
	for i, j := 0, len(edits)-1; i < j; i, j = i+1, j-1 {
		edits[i], edits[j] = edits[j], edits[i]
	}
	return edits
}
