// Command wc counts lines, words, characters and bytes.
//
//	wc [-l] [-w] [-m] [-c] [-L] [file...]
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

// kinds of counts, in the order in which they are printed.
const kinds = "lwmcL"

type counts [len(kinds)]int64

func main() { tool.Main("wc", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: kinds, Long: "lines=l words=w chars=m bytes=c max-line-length=L", Usage: "[-lwmcL] [file...]",
	}, args)
	if !ok {
		return
	}
	wanted := map[byte]bool{}
	for _, o := range options {
		wanted[o.Letter] = true
	}
	if len(wanted) == 0 {
		wanted = map[byte]bool{'l': true, 'w': true, 'c': true}
	}
	width := columnWidth(files)
	if len(wanted) == 1 && len(files) < 2 {
		width = 1
	}
	show := func(c *counts, name string) {
		var fields []string
		for i := range kinds {
			if wanted[kinds[i]] {
				fields = append(fields, fmt.Sprintf("%*d", width, c[i]))
			}
		}
		if name != "" {
			fields = append(fields, name)
		}
		fmt.Fprintln(e.Out, strings.Join(fields, " "))
	}
	var total counts
	e.Each(files, func(name string, r io.Reader) error {
		c, err := count(r, wanted['w'] || wanted['m'] || wanted['L'])
		for i := range c {
			if kinds[i] == 'L' {
				total[i] = max(total[i], c[i])
			} else {
				total[i] += c[i]
			}
		}
		if len(files) == 0 {
			name = ""
		}
		if err == nil {
			show(&c, name)
		}
		return err
	})
	if len(files) > 1 {
		show(&total, "total")
	}
}

// columnWidth is wide enough for the sum of the sizes, or 7 where that is unknown.
func columnWidth(files []string) int {
	var sum int64
	for _, name := range files {
		info, err := os.Stat(name)
		switch {
		case err != nil && name != "-":
		case err != nil || !info.Mode().IsRegular():
			return 7
		default:
			sum += info.Size()
		}
	}
	if len(files) == 0 {
		return 7
	}
	return len(strconv.FormatInt(sum, 10))
}

// count counts lines and bytes, and the rest when text is set.
func count(r io.Reader, text bool) (c counts, err error) {
	buf := make([]byte, 64<<10)
	inWord, column, kept := false, int64(0), 0
	for err == nil {
		var n int
		n, err = r.Read(buf[kept:])
		c[0] += int64(bytes.Count(buf[kept:kept+n], []byte{'\n'}))
		c[3] += int64(n)
		if !text {
			continue
		}
		part := buf[:kept+n]
		// What may be the beginning of a character waits for the next read.
		for len(part) > 0 && (err != nil || utf8.FullRune(part)) {
			char, n := utf8.DecodeRune(part)
			part = part[n:]
			valid := char != utf8.RuneError || n > 1
			if valid {
				c[2]++
			}
			space := unicode.IsSpace(char)
			if !space && !inWord {
				c[1]++
			}
			inWord = !space
			switch {
			case char == '\n':
				column = 0
			case char == '\t':
				column = column/8*8 + 8
			case valid && unicode.IsPrint(char):
				column++
			}
			c[4] = max(c[4], column)
		}
		kept = copy(buf, part)
	}
	if err == io.EOF {
		err = nil
	}
	return c, err
}
