package main

import (
	"fmt"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/myers"
)

func (d *differ) line(mark, line string) {
	d.e.Out.WriteString(mark)
	d.e.Out.WriteString(line)
	if !strings.HasSuffix(line, "\n") {
		d.e.Out.WriteString("\n\\ No newline at end of file\n")
	}
}

func (d *differ) lines(mark string, lines []string) {
	for _, line := range lines {
		d.line(mark, line)
	}
}

// printNormal prints what ed would be told, roughly: 2,3c4 and the lines.
func (d *differ) printNormal(x, y []string, edits []myers.Edit) {
	span := func(from, to int) string {
		switch {
		case from == to: // after this line
			return fmt.Sprint(from)
		case from+1 == to:
			return fmt.Sprint(to)
		}
		return fmt.Sprintf("%d,%d", from+1, to)
	}
	for _, e := range edits {
		letter := "c"
		switch {
		case e.A1 == e.A2:
			letter = "a"
		case e.B1 == e.B2:
			letter = "d"
		}
		fmt.Fprintf(d.e.Out, "%s%s%s\n", span(e.A1, e.A2), letter, span(e.B1, e.B2))
		d.lines("< ", x[e.A1:e.A2])
		if letter == "c" {
			d.e.Out.WriteString("---\n")
		}
		d.lines("> ", y[e.B1:e.B2])
	}
}

// printUnified prints hunks: edits that are near enough share their context.
func (d *differ) printUnified(x, y []string, edits []myers.Edit) {
	for len(edits) > 0 {
		n := 1
		for n < len(edits) && edits[n].A1-edits[n-1].A2 <= 2*d.context {
			n++
		}
		hunk := edits[:n]
		edits = edits[n:]
		first, last := hunk[0], hunk[n-1]
		before := min(d.context, first.A1, first.B1)
		after := min(d.context, len(x)-last.A2, len(y)-last.B2)
		fmt.Fprintf(d.e.Out, "@@ -%s +%s @@\n", count(first.A1-before, last.A2+after), count(first.B1-before, last.B2+after))
		at := first.A1 - before
		for _, e := range hunk {
			d.lines(" ", x[at:e.A1])
			d.lines("-", x[e.A1:e.A2])
			d.lines("+", y[e.B1:e.B2])
			at = e.A2
		}
		d.lines(" ", x[at:last.A2+after])
	}
}

// count gives the first line and how many there are, as a hunk's head has them.
func count(from, to int) string {
	switch to - from {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return fmt.Sprint(from + 1)
	}
	return fmt.Sprintf("%d,%d", from+1, to-from)
}
