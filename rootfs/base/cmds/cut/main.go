// Command cut prints parts of lines.
//
//	cut -b list | -c list | -f list [-d delimiter] [-s] [--output-delimiter=text] [file...]
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

type span struct{ from, to int } // 1-based, inclusive

type cutter struct {
	unit      byte // b, c or f
	spans     []span
	delimiter string
	join      string
	hasJoin   bool
	only      bool // lines without delimiter are left out
	invert    bool
}

func main() {
	c := &cutter{delimiter: "\t"}
	files, err := c.parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "cut: %v\n", err)
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	status := 0
	for _, name := range files {
		if err := c.file(out, name); err != nil {
			fmt.Fprintf(os.Stderr, "cut: %v\n", err)
			status = 1
		}
	}
	if err := out.Flush(); err != nil {
		status = 1
	}
	os.Exit(status)
}

func (c *cutter) parse(args []string) (files []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if text, ok := strings.CutPrefix(arg, "--output-delimiter="); ok {
			c.join, c.hasJoin = text, true
			continue
		}
		switch {
		case arg == "--complement":
			c.invert = true
		case arg == "-s":
			c.only = true
		case arg == "-n":
		case arg == "--":
			files, args = append(files, args...), nil
		case len(arg) > 1 && arg[0] == '-' && strings.ContainsRune("bcfd", rune(arg[1])):
			value := arg[2:]
			if value == "" {
				if len(args) == 0 {
					return nil, fmt.Errorf("%s needs a value", arg)
				}
				value, args = args[0], args[1:]
			}
			if arg[1] == 'd' {
				c.delimiter = value
				continue
			}
			if c.unit != 0 {
				return nil, errors.New("only one of -b, -c and -f")
			}
			c.unit = arg[1]
			if c.spans, err = parseSpans(value); err != nil {
				return nil, err
			}
		case len(arg) > 1 && arg[0] == '-':
			return nil, fmt.Errorf("unknown option %s", arg)
		default:
			files = append(files, arg)
		}
	}
	if c.unit == 0 {
		return nil, errors.New("one of -b, -c and -f is needed")
	}
	if !c.hasJoin && c.unit == 'f' {
		c.join = c.delimiter
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	return files, nil
}

func parseSpans(list string) ([]span, error) {
	var spans []span
	for item := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(item, "-")
		s := span{1, math.MaxInt}
		var err1, err2 error
		if from != "" {
			s.from, err1 = strconv.Atoi(from)
		}
		switch {
		case !isRange:
			s.to = s.from
		case to != "":
			s.to, err2 = strconv.Atoi(to)
		}
		if err1 != nil || err2 != nil || s.from < 1 || s.to < s.from || (from == "" && to == "") {
			return nil, fmt.Errorf("bad list %q", list)
		}
		spans = append(spans, s)
	}
	return spans, nil
}

func (c *cutter) selected(n int) bool {
	for _, s := range c.spans {
		if n >= s.from && n <= s.to {
			return !c.invert
		}
	}
	return c.invert
}

func (c *cutter) file(out *bufio.Writer, name string) error {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return err
		}
		defer f.Close()
	}
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			if text, ok := c.line(strings.TrimSuffix(line, "\n")); ok {
				out.WriteString(text)
				out.WriteByte('\n')
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *cutter) line(text string) (string, bool) {
	var units []string
	switch c.unit {
	case 'f':
		if !strings.Contains(text, c.delimiter) {
			return text, !c.only
		}
		units = strings.Split(text, c.delimiter)
	case 'c':
		units = strings.Split(text, "")
	default:
		for i := range len(text) {
			units = append(units, text[i:i+1])
		}
	}
	var kept []string
	for i, u := range units {
		if c.selected(i + 1) {
			kept = append(kept, u)
		}
	}
	return strings.Join(kept, c.join), true
}
