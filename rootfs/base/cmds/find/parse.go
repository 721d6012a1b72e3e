package main

import (
	"errors"
	"fmt"
	"strconv"
)

// node is a part of the expression. It tells whether it holds, and does what it
// is there for.
type node func(f *file) bool

type parser struct {
	w      *walker
	args   []string
	action bool // whether there is one that replaces -print
}

func (p *parser) parse() error {
	expr := node(func(*file) bool { return true })
	if len(p.args) > 0 {
		var err error
		if expr, err = p.list(); err != nil {
			return err
		}
		if len(p.args) > 0 {
			return fmt.Errorf("unexpected %q", p.args[0])
		}
	}
	p.w.expr = expr
	if !p.action {
		print := p.w.print("\n")
		p.w.expr = func(f *file) bool { return expr(f) && print(f) }
	}
	return nil
}

func (p *parser) accept(words ...string) bool {
	if len(p.args) == 0 {
		return false
	}
	for _, word := range words {
		if p.args[0] == word {
			p.args = p.args[1:]
			return true
		}
	}
	return false
}

func (p *parser) list() (node, error) {
	left, err := p.or()
	for err == nil && p.accept(",") {
		var right node
		first := left
		if right, err = p.or(); err == nil {
			left = func(f *file) bool { first(f); return right(f) }
		}
	}
	return left, err
}

func (p *parser) or() (node, error) {
	left, err := p.and()
	for err == nil && p.accept("-o", "-or") {
		var right node
		first := left
		if right, err = p.and(); err == nil {
			left = func(f *file) bool { return first(f) || right(f) }
		}
	}
	return left, err
}

func (p *parser) and() (node, error) {
	left, err := p.not()
	for err == nil {
		if !p.accept("-a", "-and") {
			if len(p.args) == 0 || p.args[0] == ")" || p.args[0] == "," || p.args[0] == "-o" || p.args[0] == "-or" {
				return left, nil
			}
		}
		var right node
		first := left
		if right, err = p.not(); err == nil {
			left = func(f *file) bool { return first(f) && right(f) }
		}
	}
	return left, err
}

func (p *parser) not() (node, error) {
	if p.accept("!", "-not") {
		n, err := p.not()
		return func(f *file) bool { return !n(f) }, err
	}
	if p.accept("(") {
		n, err := p.list()
		if err == nil && !p.accept(")") {
			err = errors.New("a bracket is not closed")
		}
		return n, err
	}
	if len(p.args) == 0 {
		return nil, errors.New("the expression ends too early")
	}
	word := p.args[0]
	p.args = p.args[1:]
	if n, ok := p.plain(word); ok {
		return n, nil
	}
	if word == "-exec" || word == "-execdir" || word == "-ok" {
		return p.exec(word)
	}
	test, ok := tests[word]
	if !ok {
		return nil, fmt.Errorf("unknown part of an expression: %s", word)
	}
	if len(p.args) == 0 {
		return nil, fmt.Errorf("%s needs a value", word)
	}
	value := p.args[0]
	p.args = p.args[1:]
	n, err := test(p, value)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", word, value, err)
	}
	return n, nil
}

func always(*file) bool { return true }

// plain are the parts without a value.
func (p *parser) plain(word string) (node, bool) {
	w := p.w
	switch word {
	case "-depth", "-d":
		w.depthFirst = true
	case "-xdev", "-mount":
		w.xdev = true
	case "-true", "-noleaf", "-warn", "-nowarn", "-daystart":
	case "-false":
		return func(*file) bool { return false }, true
	case "-empty":
		return w.empty, true
	case "-readable":
		return access(4), true
	case "-writable":
		return access(2), true
	case "-executable":
		return access(1), true
	case "-prune":
		return func(*file) bool { w.prune = true; return true }, true
	default:
		return p.simpleAction(word)
	}
	return always, true
}

func (p *parser) simpleAction(word string) (node, bool) {
	w := p.w
	var n node
	switch word {
	case "-print":
		n = w.print("\n")
	case "-print0":
		n = w.print("\x00")
	case "-ls":
		n = w.printf("%i %k %M %n %u %g %s %t %p\n")
	case "-delete":
		w.depthFirst = true
		n = w.remove
	case "-quit":
		n = func(*file) bool { w.quit = true; return true }
	default:
		return nil, false
	}
	p.action = true
	return n, true
}

// number reads n, +n or -n, which mean exactly, more and less.
func number(text string) (func(v int64) bool, error) {
	sign := byte(0)
	if text != "" && (text[0] == '+' || text[0] == '-') {
		sign, text = text[0], text[1:]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, errors.New("not a number")
	}
	return func(v int64) bool {
		switch sign {
		case '+':
			return v > n
		case '-':
			return v < n
		}
		return v == n
	}, nil
}
