// Command expr evaluates an expression: arithmetic, comparisons, | and &,
// text : pattern, and the words length, substr, index and match.
package main

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/bre"
)

var errSyntax = errors.New("syntax error")

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	p := &parser{args: args}
	v, err := p.binary(0)
	if err == nil && len(p.args) > 0 {
		err = errSyntax
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "expr: %v\n", err)
		os.Exit(2)
	}
	fmt.Println(v)
	if null(v) {
		os.Exit(1)
	}
}

// levels are the binary operators, the loosest first.
var levels = [][]string{{"|"}, {"&"}, {"<", "<=", "=", "==", "!=", ">=", ">"}, {"+", "-"}, {"*", "/", "%"}, {":"}}

type parser struct{ args []string }

func (p *parser) next() (string, bool) {
	if len(p.args) == 0 {
		return "", false
	}
	s := p.args[0]
	p.args = p.args[1:]
	return s, true
}

func (p *parser) binary(level int) (string, error) {
	if level == len(levels) {
		return p.primary()
	}
	left, err := p.binary(level + 1)
	for err == nil && len(p.args) > 0 && slices.Contains(levels[level], p.args[0]) {
		op, _ := p.next()
		var right string
		if right, err = p.binary(level + 1); err == nil {
			left, err = apply(op, left, right)
		}
	}
	return left, err
}

func (p *parser) primary() (string, error) {
	word, ok := p.next()
	if !ok {
		return "", errSyntax
	}
	operand := func() string {
		v, err := p.primary()
		if err != nil {
			ok = false
		}
		return v
	}
	result := word
	switch {
	case word == "(":
		v, err := p.binary(0)
		if err != nil {
			return "", err
		}
		if end, _ := p.next(); end != ")" {
			return "", errSyntax
		}
		return v, nil
	case len(p.args) == 0:
		// The last word is never an operator.
	case word == "length":
		result = strconv.Itoa(len([]rune(operand())))
	case word == "match":
		text, pattern := operand(), operand()
		v, err := apply(":", text, pattern)
		if err != nil {
			return "", err
		}
		result = v
	case word == "index":
		text, set := operand(), operand()
		result = strconv.Itoa(strings.IndexAny(text, set) + 1)
	case word == "substr":
		text, from, count := []rune(operand()), operand(), operand()
		i, err1 := strconv.Atoi(from)
		n, err2 := strconv.Atoi(count)
		result = ""
		if err1 == nil && err2 == nil && i >= 1 && i <= len(text) && n > 0 {
			result = string(text[i-1 : min(len(text), i-1+min(n, len(text)))])
		}
	}
	if !ok {
		return "", errSyntax
	}
	return result, nil
}

func null(v string) bool { return v == "" || v == "0" }

func number(s string) (*big.Int, bool) { return new(big.Int).SetString(s, 10) }

func apply(op, a, b string) (string, error) {
	switch op {
	case "|":
		if !null(a) {
			return a, nil
		}
		if !null(b) {
			return b, nil
		}
		return "0", nil
	case "&":
		if null(a) || null(b) {
			return "0", nil
		}
		return a, nil
	case ":":
		return match(a, b)
	}
	x, okX := number(a)
	y, okY := number(b)
	order := strings.Compare(a, b)
	if okX && okY {
		order = x.Cmp(y)
	}
	truth := func(v bool) (string, error) {
		if v {
			return "1", nil
		}
		return "0", nil
	}
	switch op {
	case "<":
		return truth(order < 0)
	case "<=":
		return truth(order <= 0)
	case "=", "==":
		return truth(order == 0)
	case "!=":
		return truth(order != 0)
	case ">=":
		return truth(order >= 0)
	case ">":
		return truth(order > 0)
	}
	if !okX || !okY {
		return "", errors.New("not a number")
	}
	switch op {
	case "+":
		x.Add(x, y)
	case "-":
		x.Sub(x, y)
	case "*":
		x.Mul(x, y)
	default:
		if y.Sign() == 0 {
			return "", errors.New("division by zero")
		}
		if op == "/" {
			x.Quo(x, y)
		} else {
			x.Rem(x, y)
		}
	}
	return x.String(), nil
}

// match is anchored at the beginning. It gives the first group, or the length.
func match(text, pattern string) (string, error) {
	re, err := bre.Compile(pattern, false, false)
	if err != nil {
		return "", err
	}
	m := re.FindStringSubmatchIndex(text)
	found := m != nil && m[0] == 0
	switch {
	case re.NumSubexp() > 0 && found && m[2] >= 0:
		return text[m[2]:m[3]], nil
	case re.NumSubexp() > 0:
		return "", nil
	case found:
		return strconv.Itoa(len([]rune(text[:m[1]]))), nil
	}
	return "0", nil
}
