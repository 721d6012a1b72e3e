// Command tr replaces, squeezes and deletes bytes.
//
//	tr [-c] [-d] [-s] [-t] set1 [set2]
package main

import (
	"errors"
	"io"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("tr", run) }

func run(e *tool.Env, args []string) {
	options, sets, ok := e.Parse(&tool.Syntax{
		Letters: "cCdst", Long: "complement=c delete=d squeeze-repeats=s truncate-set1=t",
		Usage: "[-c] [-d] [-s] [-t] set1 [set2]", Min: 1, Max: 2, Strict: true,
	}, args)
	if !ok {
		return
	}
	var complement, remove, squeeze, truncate bool
	for _, o := range options {
		switch o.Letter {
		case 'c', 'C':
			complement = true
		case 'd':
			remove = true
		case 's':
			squeeze = true
		case 't':
			truncate = true
		}
	}
	t, err := newTable(sets, complement, remove, squeeze, truncate)
	if err != nil {
		e.FailWith(2, err)
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := e.In.Read(buf)
		e.Out.Write(t.translate(buf[:n]))
		if err2 := e.Out.Flush(); err2 != nil {
			return
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			e.Fail(err)
			return
		}
	}
}

// table says what becomes of every byte.
type table struct {
	to      [256]byte
	remove  [256]bool
	squeeze [256]bool
	last    int // the last byte written, or -1
}

func newTable(sets []string, complement, remove, squeeze, truncate bool) (*table, error) {
	t := &table{last: -1}
	for i := range t.to {
		t.to[i] = byte(i)
	}
	wants := 2
	if remove != squeeze {
		wants = 1
	}
	if len(sets) < wants {
		return nil, errors.New("two sets are needed")
	}
	if remove && !squeeze && len(sets) == 2 {
		return nil, errors.New("one set only with -d")
	}
	from, err := expand(sets[0], 0)
	if err != nil {
		return nil, err
	}
	if complement {
		from = others(from)
	}
	if remove {
		for _, c := range from {
			t.remove[c] = true
		}
	}
	if len(sets) == 1 {
		if squeeze {
			t.mark(from)
		}
		return t, nil
	}
	to, err := expand(sets[1], len(from))
	if err != nil {
		return nil, err
	}
	if squeeze {
		t.mark(to)
	}
	if remove {
		return t, nil
	}
	if len(to) == 0 && len(from) > 0 && !truncate {
		return nil, errors.New("the second set is empty")
	}
	seen := [256]bool{}
	for i, c := range from {
		switch {
		case seen[c]:
		case i < len(to):
			t.to[c] = to[i]
		case !truncate:
			t.to[c] = to[len(to)-1]
		}
		seen[c] = true
	}
	return t, nil
}

func (t *table) mark(set []byte) {
	for _, c := range set {
		t.squeeze[c] = true
	}
}

func others(set []byte) (rest []byte) {
	var in [256]bool
	for _, c := range set {
		in[c] = true
	}
	for i, ok := range in {
		if !ok {
			rest = append(rest, byte(i))
		}
	}
	return rest
}

// translate works in place.
func (t *table) translate(b []byte) []byte {
	out := b[:0]
	for _, c := range b {
		if t.remove[c] {
			continue
		}
		c = t.to[c]
		if t.squeeze[c] && t.last == int(c) {
			continue
		}
		t.last = int(c)
		out = append(out, c)
	}
	return out
}
