package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/bre"
)

// address selects lines: a number, the last line, a pattern, or every step
// lines from a first.
type address struct {
	line, step int
	last       bool
	re         *regexp.Regexp
	anyRE      bool // the empty pattern: the last one used
	plus       bool // as second address: that many lines more
}

type command struct {
	first, second *address
	negate        bool
	name          byte
	text          string // of a, i, c, r, w and labels
	target        int    // where b, t, T and a { that does not apply go on
	sub           *substitution
	exchange      map[rune]rune
	status        int

	active bool // inside the range
	until  int  // last line of the range when it is known
}

type substitution struct {
	re     *regexp.Regexp
	anyRE  bool
	with   []piece
	global bool
	print  bool
	nth    int
	file   *os.File
}

// piece is a part of a replacement: text or, when text is empty, a group.
type piece struct {
	text   string
	group  int
	isText bool
	change byte // u, l, U, L or E: a change of case that begins here
}

type program struct {
	commands []command
	files    map[string]*os.File
}

type parser struct {
	s        string
	extended bool
	p        *program
	labels   map[string]int
	blocks   []int
}

func parse(script string, extended bool) (*program, error) {
	p := &parser{s: script, extended: extended, p: &program{files: map[string]*os.File{}}, labels: map[string]int{}}
	for {
		p.s = strings.TrimLeft(p.s, " \t\n;")
		if p.s == "" {
			break
		}
		if p.s[0] == '#' {
			_, p.s, _ = strings.Cut(p.s, "\n")
			continue
		}
		if err := p.command(); err != nil {
			return nil, err
		}
	}
	if len(p.blocks) > 0 {
		return nil, fmt.Errorf("{ without }")
	}
	for i := range p.p.commands {
		c := &p.p.commands[i]
		if c.name == 'b' || c.name == 't' || c.name == 'T' {
			c.target = len(p.p.commands)
			if c.text != "" {
				at, ok := p.labels[c.text]
				if !ok {
					return nil, fmt.Errorf("no label %q", c.text)
				}
				c.target = at
			}
		}
	}
	return p.p, nil
}

func (p *parser) command() (err error) {
	var c command
	if c.first, err = p.address(false); err != nil {
		return err
	}
	p.blanks()
	if c.first != nil && strings.HasPrefix(p.s, ",") {
		p.s = strings.TrimLeft(p.s[1:], " \t")
		if c.second, err = p.address(true); err != nil {
			return err
		}
		if c.second == nil {
			return fmt.Errorf("a second address is missing")
		}
	}
	p.blanks()
	for strings.HasPrefix(p.s, "!") {
		c.negate = true
		p.s = strings.TrimLeft(p.s[1:], " \t")
	}
	if p.s == "" {
		return fmt.Errorf("a command is missing")
	}
	c.name, p.s = p.s[0], p.s[1:]
	switch c.name {
	case '{':
		p.blocks = append(p.blocks, len(p.p.commands))
	case '}':
		if len(p.blocks) == 0 {
			return fmt.Errorf("} without {")
		}
		open := p.blocks[len(p.blocks)-1]
		p.blocks = p.blocks[:len(p.blocks)-1]
		p.p.commands[open].target = len(p.p.commands)
		return p.end()
	case ':':
		p.labels[p.word()] = len(p.p.commands)
		return nil
	case '=', 'd', 'D', 'g', 'G', 'h', 'H', 'l', 'n', 'N', 'p', 'P', 'x':
		err = p.end()
	case 'q', 'Q':
		p.blanks()
		digits := len(p.s) - len(strings.TrimLeft(p.s, "0123456789"))
		c.status, _ = strconv.Atoi(p.s[:digits])
		p.s = p.s[digits:]
		err = p.end()
	case 'b', 't', 'T':
		c.text = p.word()
	case 'a', 'i', 'c':
		c.text = p.text()
	case 'r', 'w':
		p.blanks()
		c.text, p.s, _ = strings.Cut(p.s, "\n")
		if c.name == 'w' {
			_, err = p.file(c.text)
		}
	case 's':
		c.sub, err = p.substitution()
	case 'y':
		c.exchange, err = p.exchange()
	default:
		err = fmt.Errorf("unknown command %q", c.name)
	}
	p.p.commands = append(p.p.commands, c)
	return err
}

func (p *parser) blanks() { p.s = strings.TrimLeft(p.s, " \t") }

// end wants nothing more of this command.
func (p *parser) end() error {
	p.blanks()
	if p.s == "" || strings.IndexByte(";\n}#", p.s[0]) >= 0 {
		return nil
	}
	return fmt.Errorf("extra characters after a command: %q", p.s)
}

func (p *parser) word() string {
	p.blanks()
	n := strings.IndexAny(p.s, ";\n }")
	if n < 0 {
		n = len(p.s)
	}
	w := p.s[:n]
	p.s = p.s[n:]
	return w
}

// text reads what a, i and c add: up to a line end without backslash.
func (p *parser) text() string {
	p.blanks()
	if rest, ok := strings.CutPrefix(p.s, `\`); ok {
		p.s = strings.TrimPrefix(strings.TrimLeft(rest, " \t"), "\n")
	}
	var b strings.Builder
	for len(p.s) > 0 {
		ch := p.s[0]
		p.s = p.s[1:]
		if ch == '\n' {
			break
		}
		if ch == '\\' && len(p.s) > 0 {
			ch = p.s[0]
			p.s = p.s[1:]
			if ch == 't' {
				ch = '\t'
			}
		}
		b.WriteByte(ch)
	}
	return b.String() + "\n"
}

func (p *parser) file(name string) (*os.File, error) {
	if f := p.p.files[name]; f != nil {
		return f, nil
	}
	f, err := os.Create(name)
	p.p.files[name] = f
	return f, err
}

func (p *parser) number() (int, bool) {
	n := len(p.s) - len(strings.TrimLeft(p.s, "0123456789"))
	v, err := strconv.Atoi(p.s[:n])
	p.s = p.s[n:]
	return v, err == nil
}

func (p *parser) address(second bool) (*address, error) {
	switch {
	case p.s == "":
		return nil, nil
	case p.s[0] == '$':
		p.s = p.s[1:]
		return &address{last: true}, nil
	case second && p.s[0] == '+':
		p.s = p.s[1:]
		n, ok := p.number()
		if !ok {
			return nil, fmt.Errorf("a number is missing after +")
		}
		return &address{line: n, plus: true}, nil
	case p.s[0] >= '0' && p.s[0] <= '9':
		n, ok := p.number()
		if !ok {
			return nil, fmt.Errorf("bad line number")
		}
		a := &address{line: n}
		if strings.HasPrefix(p.s, "~") {
			p.s = p.s[1:]
			a.step, _ = p.number()
		}
		return a, nil
	case p.s[0] == '/' || p.s[0] == '\\' && len(p.s) > 1:
		delimiter := p.s[0]
		p.s = p.s[1:]
		if delimiter == '\\' {
			delimiter, p.s = p.s[0], p.s[1:]
		}
		expr, err := p.until(delimiter, true)
		if err != nil {
			return nil, err
		}
		fold := strings.HasPrefix(p.s, "I")
		if fold {
			p.s = p.s[1:]
		}
		if expr == "" {
			return &address{anyRE: true}, nil
		}
		re, err := bre.Compile(expr, p.extended, fold)
		return &address{re: re}, err
	}
	return nil, nil
}

// until reads to the delimiter. A delimiter with a backslash, or (in a pattern)
// within brackets, does not count.
func (p *parser) until(delimiter byte, pattern bool) (string, error) {
	var b strings.Builder
	bracket := 0 // where in b a bracket expression began, plus 1
	for i := 0; i < len(p.s); i++ {
		ch := p.s[i]
		switch {
		case ch == '\\' && i+1 < len(p.s) && bracket == 0:
			i++
			if p.s[i] != delimiter {
				b.WriteByte('\\')
			}
			b.WriteByte(p.s[i])
			continue
		case ch == delimiter && bracket == 0:
			p.s = p.s[i+1:]
			return b.String(), nil
		case pattern && ch == '[' && bracket == 0:
			bracket = b.Len() + 1
		case ch == ']' && bracket > 0:
			if inside := b.String()[bracket:]; inside != "" && inside != "^" && !openClass(inside) {
				bracket = 0
			}
		}
		b.WriteByte(ch)
	}
	return "", fmt.Errorf("%q is missing", delimiter)
}

// openClass tells whether a [: in a bracket expression is still open.
func openClass(s string) bool {
	i := strings.LastIndex(s, "[:")
	return i >= 0 && !strings.HasSuffix(s, ":") || i >= 0 && strings.HasSuffix(s, "[:")
}

func (p *parser) substitution() (*substitution, error) {
	if p.s == "" {
		return nil, fmt.Errorf("s without pattern")
	}
	delimiter := p.s[0]
	p.s = p.s[1:]
	expr, err := p.until(delimiter, true)
	if err != nil {
		return nil, err
	}
	with, err := p.until(delimiter, false)
	if err != nil {
		return nil, err
	}
	s := &substitution{with: replacement(with), anyRE: expr == ""}
	fold := false
flags:
	for p.s != "" {
		switch ch := p.s[0]; {
		case ch == 'g':
			s.global = true
		case ch == 'p':
			s.print = true
		case ch == 'i' || ch == 'I':
			fold = true
		case ch >= '1' && ch <= '9':
			s.nth, _ = p.number()
			continue
		case ch == 'w':
			p.s = strings.TrimLeft(p.s[1:], " \t")
			var name string
			name, p.s, _ = strings.Cut(p.s, "\n")
			if s.file, err = p.file(name); err != nil {
				return nil, err
			}
			break flags
		default:
			break flags
		}
		p.s = p.s[1:]
	}
	if !s.anyRE {
		if s.re, err = bre.Compile(expr, p.extended, fold); err != nil {
			return nil, err
		}
	}
	return s, p.end()
}

func replacement(s string) []piece {
	var list []piece
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			list = append(list, piece{text: text.String(), isText: true})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '&':
			flush()
			list = append(list, piece{group: 0})
		case s[i] == '\\' && i+1 < len(s):
			i++
			switch ch := s[i]; {
			case ch >= '0' && ch <= '9':
				flush()
				list = append(list, piece{group: int(ch - '0')})
			case ch == 'n':
				text.WriteByte('\n')
			case ch == 't':
				text.WriteByte('\t')
			case strings.IndexByte("ulULE", ch) >= 0:
				flush()
				list = append(list, piece{change: ch})
			default:
				text.WriteByte(ch)
			}
		default:
			text.WriteByte(s[i])
		}
	}
	flush()
	return list
}

func (p *parser) exchange() (map[rune]rune, error) {
	if p.s == "" {
		return nil, fmt.Errorf("y without text")
	}
	delimiter := p.s[0]
	p.s = p.s[1:]
	var sides [2][]rune
	for i := range sides {
		text, err := p.until(delimiter, false)
		if err != nil {
			return nil, err
		}
		sides[i] = []rune(strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t").Replace(text))
	}
	if len(sides[0]) != len(sides[1]) {
		return nil, fmt.Errorf("the texts of y differ in length")
	}
	m := map[rune]rune{}
	for i, r := range sides[0] {
		m[r] = sides[1][i]
	}
	return m, p.end()
}
