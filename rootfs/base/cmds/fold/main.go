// Command fold breaks long lines.
//
//	fold [-b] [-s] [-w width] [file...]
package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("fold", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "bsw:", Long: "bytes=b spaces=s width=w", Number: 'w', Usage: "[-b] [-s] [-w width] [file...]",
	}, args)
	if !ok {
		return
	}
	width, bytes, spaces := 80, false, false
	for _, o := range options {
		switch o.Letter {
		case 'b':
			bytes = true
		case 's':
			spaces = true
		case 'w':
			var err error
			if width, err = strconv.Atoi(o.Value); err != nil || width < 1 {
				e.Failf("bad width %q", o.Value)
				return
			}
		}
	}
	e.Each(files, func(_ string, r io.Reader) error {
		return e.Lines(r, func(line string) {
			for _, part := range fold(line, width, bytes, spaces) {
				e.Out.WriteString(part + "\n")
			}
		})
	})
}

// fold returns a line's parts, of at most width columns where that is possible.
func fold(line string, width int, bytes, spaces bool) []string {
	var parts []string
	for {
		column, end := 0, len(line)
		for i, c := range line {
			next := column + 1
			switch {
			case bytes:
				next = i + len(string(c))
			case c == '\t':
				next = column/8*8 + 8
			case c == '\b':
				next = max(column-1, 0)
			case c == '\r':
				next = 0
			}
			if next > width && i > 0 {
				end = i
				break
			}
			column = next
		}
		if end == len(line) {
			return append(parts, line)
		}
		if blank := strings.LastIndexAny(line[:end], " \t"); spaces && blank >= 0 {
			end = blank + 1
		}
		parts = append(parts, line[:end])
		line = line[end:]
	}
}
