package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// machine runs a program over an input.
type machine struct {
	program *program
	in      *input
	out     *bufio.Writer
	quiet   bool

	line      int
	space     string // pattern space
	ended     bool   // the line had an end
	hold      string
	appended  []command // of a and r, for the end of the cycle
	replaced  bool      // since the last line or t
	lastRE    *regexp.Regexp
	noNewline bool
	quit      bool
}

var errNoPattern = errors.New("no previous regular expression")

func (m *machine) read() (string, bool) {
	text, ok := m.in.next()
	if ok {
		m.line++
		m.ended = strings.HasSuffix(text, "\n")
		text = strings.TrimSuffix(text, "\n")
	}
	return text, ok
}

func (m *machine) print(text string) {
	if m.noNewline {
		m.out.WriteByte('\n')
		m.noNewline = false
	}
	m.out.WriteString(text)
	// A last line without end stays one.
	if m.ended {
		m.out.WriteByte('\n')
	} else {
		m.noNewline = true
	}
}

// verdict is what a run over one line ends in.
type verdict int

const (
	nextCycle verdict = iota // with the automatic print
	deleted
	restart // D: again, without reading
	quitting
	quittingQuietly
)

func (m *machine) run() (status int, err error) {
	again := false
	for {
		if !again {
			text, ok := m.read()
			if !ok {
				return status, nil
			}
			m.space = text
			m.replaced = false
		}
		v, code, err := m.cycle()
		if err != nil {
			return 2, err
		}
		if !m.quiet && (v == nextCycle || v == quitting) {
			m.print(m.space)
		}
		if err := m.flush(); err != nil {
			return 2, err
		}
		if v == quitting || v == quittingQuietly {
			m.quit = true
			return code, nil
		}
		again = v == restart
	}
}

// flush writes what a and r left for the end of the cycle.
func (m *machine) flush() error {
	for _, c := range m.appended {
		text := c.text
		if c.name == 'r' {
			b, err := os.ReadFile(c.text)
			if err != nil {
				continue // as sed does
			}
			text = string(b)
		}
		if m.noNewline {
			m.out.WriteByte('\n')
			m.noNewline = false
		}
		m.out.WriteString(text)
	}
	m.appended = m.appended[:0]
	return nil
}

func (m *machine) cycle() (verdict, int, error) {
	list := m.program.commands
	for pc := 0; pc < len(list); pc++ {
		c := &list[pc]
		ok, err := m.selects(c)
		if err != nil {
			return 0, 0, err
		}
		if ok == c.negate {
			if c.name == '{' {
				pc = c.target - 1
			}
			continue
		}
		switch c.name {
		case 'd':
			return deleted, 0, nil
		case 'D':
			_, rest, found := strings.Cut(m.space, "\n")
			if !found {
				return deleted, 0, nil
			}
			m.space = rest
			return restart, 0, nil
		case 'q':
			return quitting, c.status, nil
		case 'Q':
			return quittingQuietly, c.status, nil
		case 'c':
			if c.second == nil || !c.active || c.negate {
				m.out.WriteString(c.text)
			}
			return deleted, 0, nil
		case 'n':
			if m.in.last() {
				return quitting, 0, nil
			}
			if !m.quiet {
				m.print(m.space)
			}
			if err := m.flush(); err != nil {
				return 0, 0, err
			}
			m.space, _ = m.read()
		case 'N':
			if m.in.last() {
				return quitting, 0, nil
			}
			text, _ := m.read()
			m.space += "\n" + text
		case 'b':
			pc = c.target - 1
		case 't', 'T':
			if m.replaced == (c.name == 't') {
				pc = c.target - 1
			}
			m.replaced = false
		case 's':
			if err := m.substitute(c.sub); err != nil {
				return 0, 0, err
			}
		default:
			m.simple(c)
		}
	}
	return nextCycle, 0, nil
}

// simple runs the commands that neither jump nor fail.
func (m *machine) simple(c *command) {
	switch c.name {
	case '=':
		fmt.Fprintln(m.out, m.line)
	case 'a', 'r':
		m.appended = append(m.appended, *c)
	case 'i':
		m.out.WriteString(c.text)
	case 'g':
		m.space = m.hold
	case 'G':
		m.space += "\n" + m.hold
	case 'h':
		m.hold = m.space
	case 'H':
		m.hold += "\n" + m.space
	case 'x':
		m.space, m.hold = m.hold, m.space
	case 'l':
		q := strconv.Quote(m.space)
		fmt.Fprintf(m.out, "%s$\n", strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`))
	case 'p':
		m.print(m.space)
	case 'P':
		first, _, _ := strings.Cut(m.space, "\n")
		fmt.Fprintln(m.out, first)
	case 'w':
		fmt.Fprintln(m.program.files[c.text], m.space)
	case 'y':
		m.space = strings.Map(func(r rune) rune {
			if to, ok := c.exchange[r]; ok {
				return to
			}
			return r
		}, m.space)
	}
}

func (m *machine) pattern(re *regexp.Regexp, anyRE bool) (*regexp.Regexp, error) {
	if anyRE {
		re = m.lastRE
	}
	if re == nil {
		return nil, errNoPattern
	}
	m.lastRE = re
	return re, nil
}

func (m *machine) matches(a *address) (bool, error) {
	switch {
	case a.last:
		return m.in.last(), nil
	case a.re != nil || a.anyRE:
		re, err := m.pattern(a.re, a.anyRE)
		return err == nil && re.MatchString(m.space), err
	case a.step > 0:
		return m.line >= a.line && (m.line-a.line)%a.step == 0, nil
	}
	return m.line == a.line, nil
}

// selects tells whether the addresses of a command select the line.
func (m *machine) selects(c *command) (bool, error) {
	if c.first == nil {
		return true, nil
	}
	if c.second == nil {
		return m.matches(c.first)
	}
	if !c.active {
		// The address 0 lets a pattern end the range in the first line.
		fromZero := c.first.line == 0 && c.first.re == nil && !c.first.anyRE && !c.first.last && m.line == 1
		if !fromZero {
			if ok, err := m.matches(c.first); !ok || err != nil {
				return false, err
			}
			c.active = true
			c.until = 0
			switch s := c.second; {
			case s.plus:
				c.until = m.line + s.line
			case s.re == nil && !s.anyRE && !s.last:
				c.until = s.line
			}
			if s := c.second; s.re == nil && !s.anyRE && !s.last && c.until <= m.line {
				c.active = false
			}
			if c.second.last && m.in.last() {
				c.active = false
			}
			return true, nil
		}
		c.active = true
	}
	if s := c.second; s.re == nil && !s.anyRE && !s.last {
		c.active = m.line < c.until
		return m.line <= c.until, nil
	}
	end, err := m.matches(c.second)
	c.active = !end
	return true, err
}

func (m *machine) substitute(s *substitution) error {
	re, err := m.pattern(s.re, s.anyRE)
	if err != nil {
		return err
	}
	count := -1
	if !s.global && s.nth == 0 {
		count = 1
	}
	var b strings.Builder
	end, done := 0, false
	for n, at := range re.FindAllStringSubmatchIndex(m.space, count) {
		if n+1 < s.nth || s.nth > 0 && !s.global && n+1 > s.nth {
			continue
		}
		b.WriteString(m.space[end:at[0]])
		b.WriteString(s.expand(m.space, at))
		end, done = at[1], true
	}
	if !done {
		return nil
	}
	b.WriteString(m.space[end:])
	m.space = b.String()
	m.replaced = true
	if s.print {
		m.print(m.space)
	}
	if s.file != nil {
		fmt.Fprintln(s.file, m.space)
	}
	return nil
}

// expand makes the replacement of one match.
func (s *substitution) expand(text string, at []int) string {
	var b strings.Builder
	var all, one byte // changes of case: until E, and of one character
	for _, p := range s.with {
		if p.change != 0 {
			switch p.change {
			case 'u', 'l':
				one = p.change
			case 'E':
				all = 0
			default:
				all = p.change
			}
			continue
		}
		part := p.text
		if !p.isText {
			if 2*p.group+1 >= len(at) || at[2*p.group] < 0 {
				continue
			}
			part = text[at[2*p.group]:at[2*p.group+1]]
		}
		switch all {
		case 'U':
			part = strings.ToUpper(part)
		case 'L':
			part = strings.ToLower(part)
		}
		if one != 0 && part != "" {
			r := []rune(part)
			if one == 'u' {
				r[0] = unicode.ToUpper(r[0])
			} else {
				r[0] = unicode.ToLower(r[0])
			}
			part, one = string(r), 0
		}
		b.WriteString(part)
	}
	return b.String()
}
