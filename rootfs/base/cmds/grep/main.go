// Command grep prints lines that match a pattern.
//
//	grep [-EFGHILRachilnoqrsvwx] [-e pattern] [-f file] [-m n] [-A n] [-B n] [-C n] pattern [file...]
//
// Patterns are basic expressions; extended ones with -E or under the name
// egrep. There are no back references.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/bre"
)

type grep struct {
	patterns []string
	extended, fixed, fold, invert, word, line,
	count, listMatching, listOthers, only, quiet, silent,
	numbers, names, noNames, recursive bool
	max, before, after int

	re     *regexp.Regexp
	out    *bufio.Writer
	found  bool
	failed bool
}

func main() {
	g := &grep{max: -1, out: bufio.NewWriter(os.Stdout)}
	status := g.run(os.Args[1:])
	if err := g.out.Flush(); err != nil && !g.quiet {
		status = 2
	}
	os.Exit(status)
}

func (g *grep) run(args []string) int {
	files, err := g.parse(args)
	if err == nil {
		err = g.compile()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "grep: %v\n", err)
		return 2
	}
	if len(files) == 0 {
		files = []string{"-"}
		if g.recursive {
			files[0] = "."
		}
	}
	g.names = (g.names || len(files) > 1 || g.recursive) && !g.noNames
	for _, name := range files {
		if !g.recursive || name == "-" {
			g.file(name)
			continue
		}
		filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				g.complain(err)
			} else if d.Type().IsRegular() || path == name && !d.IsDir() {
				g.file(path)
			}
			return nil
		})
	}
	switch {
	case g.found && (g.quiet || !g.failed):
		return 0
	case g.failed:
		return 2
	}
	return 1
}

func (g *grep) complain(err error) {
	g.failed = true
	if !g.silent {
		fmt.Fprintf(os.Stderr, "grep: %v\n", err)
	}
}

var long = map[string]string{
	"--extended-regexp": "E", "--fixed-strings": "F", "--ignore-case": "i", "--invert-match": "v", "--count": "c",
	"--files-with-matches": "l", "--files-without-match": "L", "--line-number": "n", "--only-matching": "o", "--quiet": "q",
	"--silent": "q", "--no-messages": "s", "--recursive": "r", "--word-regexp": "w", "--line-regexp": "x",
	"--with-filename": "H", "--no-filename": "h", "--regexp": "e", "--file": "f", "--max-count": "m",
	"--after-context": "A", "--before-context": "B", "--context": "C", "--text": "a",
}

func (g *grep) parse(args []string) (files []string, err error) {
	given := false
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			files, args = append(files, args...), nil
			continue
		case strings.HasPrefix(arg, "--color"):
			continue
		case strings.HasPrefix(arg, "--"):
			name, value, _ := strings.Cut(arg, "=")
			letter, ok := long[name]
			if !ok {
				return nil, fmt.Errorf("unknown option %s", arg)
			}
			arg = "-" + letter + value
		case len(arg) < 2 || arg[0] != '-':
			files = append(files, arg)
			continue
		}
		for i := 1; i < len(arg); i++ {
			if c := arg[i]; strings.IndexByte("efmABC", c) >= 0 {
				value := arg[i+1:]
				if value == "" {
					if len(args) == 0 {
						return nil, fmt.Errorf("-%c needs a value", c)
					}
					value, args = args[0], args[1:]
				}
				given = given || c == 'e' || c == 'f'
				if err := g.value(c, value); err != nil {
					return nil, err
				}
				break
			}
			if err := g.flag(arg[i]); err != nil {
				return nil, err
			}
		}
	}
	if !given {
		if len(files) == 0 {
			return nil, errors.New("a pattern is missing")
		}
		g.patterns, files = strings.Split(files[0], "\n"), files[1:]
	}
	return files, nil
}

func (g *grep) flag(c byte) error {
	switch c {
	case 'E':
		g.extended = true
	case 'F':
		g.fixed = true
	case 'G':
		g.extended = false
	case 'H':
		g.names = true
	case 'h':
		g.noNames = true
	case 'i', 'y':
		g.fold = true
	case 'v':
		g.invert = true
	case 'c':
		g.count = true
	case 'l':
		g.listMatching = true
	case 'L':
		g.listOthers = true
	case 'n':
		g.numbers = true
	case 'o':
		g.only = true
	case 'q':
		g.quiet = true
	case 's':
		g.silent = true
	case 'r', 'R':
		g.recursive = true
	case 'w':
		g.word = true
	case 'x':
		g.line = true
	case 'a', 'I', 'U':
	default:
		return fmt.Errorf("unknown option -%c", c)
	}
	return nil
}

func (g *grep) value(c byte, value string) error {
	switch c {
	case 'e':
		g.patterns = append(g.patterns, strings.Split(value, "\n")...)
		return nil
	case 'f':
		b, err := os.ReadFile(value)
		if err == nil && len(b) > 0 {
			g.patterns = append(g.patterns, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")...)
		}
		return err
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fmt.Errorf("-%c: %q is not a number", c, value)
	}
	switch c {
	case 'm':
		g.max = n
	case 'A':
		g.after = n
	case 'B':
		g.before = n
	case 'C':
		g.after, g.before = n, n
	}
	return nil
}

func (g *grep) compile() error {
	var parts []string
	for _, p := range g.patterns {
		text := regexp.QuoteMeta(p)
		if !g.fixed {
			re, err := bre.Compile(p, g.extended, false)
			if err != nil {
				return fmt.Errorf("%q: %v", p, err)
			}
			text = re.String()
		}
		parts = append(parts, "(?:"+text+")")
	}
	if len(parts) == 0 {
		parts = []string{"[^\\x00-\\x{10FFFF}]"} // no patterns match nothing
	}
	expr := strings.Join(parts, "|")
	if g.word {
		expr = `\b(?:` + expr + `)\b`
	}
	if g.line {
		expr = `^(?:` + expr + `)$`
	}
	if g.fold {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err == nil {
		re.Longest()
	}
	g.re = re
	return err
}

// file searches one file.
func (g *grep) file(name string) {
	f, shown := os.Stdin, "(standard input)"
	if name != "-" {
		shown = name
		var err error
		if f, err = os.Open(name); err != nil {
			g.complain(err)
			return
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			g.complain(fmt.Errorf("%s: is a directory", name))
			return
		}
	}
	s := &search{grep: g, name: shown, last: -1}
	err := s.lines(bufio.NewReader(f))
	if err != nil {
		g.complain(err)
	}
	switch {
	case g.quiet:
	case g.listMatching && s.matches > 0, g.listOthers && s.matches == 0:
		fmt.Fprintln(g.out, shown)
	case g.count && !g.listMatching && !g.listOthers:
		if g.names {
			fmt.Fprintf(g.out, "%s:", shown)
		}
		fmt.Fprintln(g.out, s.matches)
	}
}

// search is the work on one file.
type search struct {
	*grep
	name    string
	matches int
	number  int
	last    int      // line printed last, for the context
	history [][]byte // lines before this one
	follow  int      // lines still to print after a match
}

func (s *search) lines(in *bufio.Reader) error {
	for s.max != 0 && (s.max < 0 || s.matches < s.max || s.follow > 0) {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			s.number++
			if done := s.lineAt(bytes.TrimSuffix(line, []byte("\n"))); done {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lineAt handles one line; it reports that the rest of the file does not matter.
func (s *search) lineAt(line []byte) (done bool) {
	full := s.max > 0 && s.matches >= s.max
	if full || s.re.Match(line) == s.invert {
		if s.follow > 0 {
			s.follow--
			s.print('-', s.number, line)
		} else if s.before > 0 {
			s.history = append(s.history, line)
			if len(s.history) > s.before {
				s.history = s.history[1:]
			}
		}
		return false
	}
	s.matches++
	s.found = true
	if s.quiet || s.listMatching || s.listOthers {
		return true
	}
	if s.count {
		return false
	}
	first := s.number - len(s.history)
	if (s.before > 0 || s.after > 0) && s.last >= 0 && first > s.last+1 {
		fmt.Fprintln(s.out, "--")
	}
	for i, old := range s.history {
		s.print('-', first+i, old)
	}
	s.history = s.history[:0]
	s.follow = s.after
	if !s.only {
		s.print(':', s.number, line)
		return false
	}
	if !s.invert {
		for _, m := range s.re.FindAll(line, -1) {
			if len(m) > 0 {
				s.print(':', s.number, m)
			}
		}
	}
	return false
}

func (s *search) print(mark byte, number int, text []byte) {
	if s.names {
		fmt.Fprintf(s.out, "%s%c", s.name, mark)
	}
	if s.numbers {
		fmt.Fprintf(s.out, "%d%c", number, mark)
	}
	s.out.Write(text)
	s.out.WriteByte('\n')
	s.last = number
}
