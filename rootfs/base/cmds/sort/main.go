// Command sort sorts lines.
//
//	sort [-bcfhnrsuV] [-k field[.char][opts][,field[.char][opts]]]... [-t char] [-o file] [file...]
//
// Lines are compared byte by byte, as in the C locale.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// order is how a key is compared.
type order struct{ numeric, human, reverse, fold, blanks, version bool }

type key struct {
	order
	own                        bool // has options of its own
	from, fromChar, to, toChar int
}

type sorter struct {
	order
	keys      []key
	separator string
	unique    bool
	check     bool
	stable    bool
	output    string
}

func main() {
	s := &sorter{}
	files, err := s.parse(os.Args[1:])
	if err == nil {
		var status int
		if status, err = s.run(files); err == nil {
			os.Exit(status)
		}
	}
	fmt.Fprintf(os.Stderr, "sort: %v\n", err)
	os.Exit(2)
}

func (o *order) set(c byte) bool {
	switch c {
	case 'n', 'g':
		o.numeric = true
	case 'h':
		o.human = true
	case 'r':
		o.reverse = true
	case 'f':
		o.fold = true
	case 'b':
		o.blanks = true
	case 'V':
		o.version = true
	case 'd', 'i':
	default:
		return false
	}
	return true
}

func (s *sorter) parse(args []string) (files []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			files = append(files, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			files = append(files, arg)
			continue
		}
		for i := 1; i < len(arg); i++ {
			c := arg[i]
			if strings.IndexByte("kto", c) >= 0 {
				value := arg[i+1:]
				if value == "" {
					if len(args) == 0 {
						return nil, fmt.Errorf("-%c needs a value", c)
					}
					value, args = args[0], args[1:]
				}
				switch c {
				case 'k':
					k, err := parseKey(value)
					if err != nil {
						return nil, err
					}
					s.keys = append(s.keys, k)
				case 't':
					s.separator = strings.NewReplacer(`\t`, "\t", `\0`, "\x00").Replace(value)
				case 'o':
					s.output = value
				}
				break
			}
			switch c {
			case 'u':
				s.unique = true
			case 'c', 'C':
				s.check = true
			case 's':
				s.stable = true
			default:
				if !s.set(c) {
					return nil, fmt.Errorf("unknown option -%c", c)
				}
			}
		}
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	return files, nil
}

// parseKey reads F[.C][opts][,F[.C][opts]].
func parseKey(text string) (key, error) {
	var k key
	first, second, has := strings.Cut(text, ",")
	bad := fmt.Errorf("bad key %q", text)
	read := func(part string) (field, char int, ok bool) {
		n := len(part)
		for n > 0 && k.set(part[n-1]) {
			k.own = true
			n--
		}
		f, c, hasChar := strings.Cut(part[:n], ".")
		field, err := strconv.Atoi(f)
		if hasChar && err == nil {
			char, err = strconv.Atoi(c)
		}
		return field, char, err == nil && field > 0 && char >= 0
	}
	var ok bool
	if k.from, k.fromChar, ok = read(first); !ok {
		return k, bad
	}
	if has {
		if k.to, k.toChar, ok = read(second); !ok {
			return k, bad
		}
	}
	return k, nil
}

func (s *sorter) run(files []string) (int, error) {
	var lines []string
	for _, name := range files {
		f := os.Stdin
		if name != "-" {
			var err error
			if f, err = os.Open(name); err != nil {
				return 0, err
			}
			defer f.Close()
		}
		b, err := io.ReadAll(f)
		if err != nil {
			return 0, err
		}
		if text := strings.TrimSuffix(string(b), "\n"); len(b) > 0 {
			lines = append(lines, strings.Split(text, "\n")...)
		}
	}
	if s.check {
		for i := 1; i < len(lines); i++ {
			if c := s.compare(lines[i-1], lines[i]); c > 0 || c == 0 && s.unique {
				fmt.Fprintf(os.Stderr, "sort: %s:%d: disorder: %s\n", files[0], i+1, lines[i])
				return 1, nil
			}
		}
		return 0, nil
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		c := s.compare(a, b)
		if c == 0 && !s.stable && !s.unique {
			c = strings.Compare(a, b)
			if s.reverse {
				c = -c
			}
		}
		return c
	})
	if s.unique {
		lines = slices.CompactFunc(lines, func(a, b string) bool { return s.compare(a, b) == 0 })
	}
	target := os.Stdout
	if s.output != "" {
		f, err := os.Create(s.output)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		target = f
	}
	out := bufio.NewWriter(target)
	for _, l := range lines {
		out.WriteString(l)
		out.WriteByte('\n')
	}
	return 0, out.Flush()
}

// compare looks at the keys only.
func (s *sorter) compare(a, b string) int {
	if len(s.keys) == 0 {
		return s.order.compare(a, b)
	}
	for _, k := range s.keys {
		o := k.order
		if !k.own {
			o = s.order
		}
		if c := o.compare(s.cut(a, k), s.cut(b, k)); c != 0 {
			return c
		}
	}
	return 0
}

// cut takes a key out of a line.
func (s *sorter) cut(line string, k key) string {
	start, ok := s.field(line, k.from)
	if !ok {
		return ""
	}
	start.from = min(start.from+max(k.fromChar-1, 0), len(line))
	end := len(line)
	if k.to > 0 {
		if f, ok := s.field(line, k.to); ok {
			end = f.to
			if k.toChar > 0 {
				end = min(f.from+k.toChar, len(line))
			}
		}
	}
	if end < start.from {
		return ""
	}
	return line[start.from:end]
}

type extent struct{ from, to int }

// field finds the n-th field. Without a separator a field begins with the
// blanks before it.
func (s *sorter) field(line string, n int) (extent, bool) {
	at := 0
	for i := 1; ; i++ {
		end := len(line)
		if s.separator != "" {
			if j := strings.Index(line[at:], s.separator); j >= 0 {
				end = at + j
			}
		} else {
			j := at
			for j < len(line) && (line[j] == ' ' || line[j] == '\t') {
				j++
			}
			for j < len(line) && line[j] != ' ' && line[j] != '\t' {
				j++
			}
			end = j
		}
		if i == n {
			return extent{at, end}, true
		}
		if end == len(line) {
			return extent{}, false
		}
		at = end + len(s.separator)
	}
}

func (o order) compare(a, b string) int {
	if o.blanks || o.numeric || o.human {
		a, b = strings.TrimLeft(a, " \t"), strings.TrimLeft(b, " \t")
	}
	var c int
	switch {
	case o.numeric || o.human:
		c = cmp.Compare(value(a, o.human), value(b, o.human))
	case o.version:
		c = compareVersions(a, b)
	case o.fold:
		c = strings.Compare(strings.ToUpper(a), strings.ToUpper(b))
	default:
		c = strings.Compare(a, b)
	}
	if o.reverse {
		c = -c
	}
	return c
}

// value is the number at the beginning of s, 0 if there is none.
func value(s string, human bool) float64 {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.' || n == 0 && s[n] == '-') {
		n++
	}
	v, err := strconv.ParseFloat(s[:n], 64)
	if err != nil {
		return 0
	}
	if human && n < len(s) {
		if power := strings.IndexByte("KMGTPE", s[n]&^0x20); power >= 0 {
			for range power + 1 {
				v *= 1024
			}
		}
	}
	return v
}

// compareVersions compares runs of digits by their value.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, restA := digits(a)
		y, restB := digits(b)
		if x != "" && y != "" {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
			a, b = restA, restB
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) (number, rest string) {
	n := len(s) - len(strings.TrimLeft(s, "0123456789"))
	return s[:n], s[n:]
}
