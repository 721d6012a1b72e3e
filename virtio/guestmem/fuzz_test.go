package guestmem

import (
	"math/big"
	"testing"
)

// FuzzSlice compares the overflow checks with arithmetic that cannot overflow.
func FuzzSlice(f *testing.F) {
	const base, size = 0xfee0_0000, 4096
	for _, s := range [][2]uint64{{base, size}, {base + size, 0}, {base - 1, 2}, {^uint64(0), base}, {base + 1, ^uint64(0)}} {
		f.Add(s[0], s[1])
	}
	m, err := FromBytes(base, make([]byte, size))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, gpa, n uint64) {
		u := func(v uint64) *big.Int { return new(big.Int).SetUint64(v) }
		end := new(big.Int).Add(u(gpa), u(n))
		want := gpa >= base && gpa < base+size && end.Cmp(u(base+size)) <= 0
		b, err := m.Slice(gpa, n)
		if (err == nil) != want {
			t.Fatalf("Slice(%#x, %#x): %v, want ok %t", gpa, n, err, want)
		}
		for i := range b {
			b[i]++
		}
		_ = m.Discard(gpa, n)
	})
}
