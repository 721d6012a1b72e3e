// Package bre translates POSIX regular expressions to Go's syntax.
package bre

import (
	"regexp"
	"strings"
)

// Compile compiles a basic or, with extended, an extended regular expression.
// Back references are not possible: Go's matcher has none.
func Compile(expr string, extended, foldCase bool) (*regexp.Regexp, error) {
	t := translate(expr, extended)
	if foldCase {
		t = "(?i)" + t
	}
	re, err := regexp.Compile(t)
	if err != nil {
		return nil, err
	}
	re.Longest() // as POSIX wants
	return re, nil
}

// translate turns the operators round: what is special with a backslash in a
// basic expression is special without one in an extended one.
func translate(expr string, extended bool) string {
	var b strings.Builder
	start := true // at the beginning of an expression or group: * is a character
	for i := 0; i < len(expr); i++ {
		c := expr[i]
		switch {
		case c == '[':
			end := bracketEnd(expr, i)
			b.WriteString(bracket(expr[i:end]))
			i = end - 1
			start = false
		case c == '\\' && i+1 < len(expr):
			i++
			start = escaped(&b, expr[i], extended)
		case extended:
			b.WriteByte(c)
			start = c == '(' || c == '|'
		case strings.IndexByte("+?(){}|", c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
			start = false
		case c == '*' && start:
			b.WriteString(`\*`)
			start = false
		case c == '^' && !start, c == '$' && i+1 < len(expr) && !strings.HasPrefix(expr[i+1:], `\)`) && !strings.HasPrefix(expr[i+1:], `\|`):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
			start = c == '^'
		}
	}
	return b.String()
}

// escaped writes what a backslash and c stand for; it reports whether an
// expression begins after it.
func escaped(b *strings.Builder, c byte, extended bool) bool {
	switch c {
	case 'n':
		b.WriteString(`\n`)
	case 't':
		b.WriteString(`\t`)
	case 'w':
		b.WriteString("[0-9A-Za-z_]")
	case 'W':
		b.WriteString("[^0-9A-Za-z_]")
	case 's':
		b.WriteString("[[:space:]]")
	case 'S':
		b.WriteString("[^[:space:]]")
	case '(', ')', '{', '}', '|', '+', '?':
		if extended {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
		return !extended && (c == '(' || c == '|')
	default:
		b.WriteString(regexp.QuoteMeta(string(c)))
	}
	return false
}

// bracketEnd finds the end of the bracket expression at expr[i].
func bracketEnd(expr string, i int) int {
	j := i + 1
	if j < len(expr) && expr[j] == '^' {
		j++
	}
	if j < len(expr) && expr[j] == ']' {
		j++
	}
	for j < len(expr) && expr[j] != ']' {
		if strings.HasPrefix(expr[j:], "[:") {
			if k := strings.Index(expr[j+2:], ":]"); k >= 0 {
				j += 2 + k + 1
			}
		}
		j++
	}
	return min(j+1, len(expr))
}

// bracket writes a bracket expression for Go, where a backslash is special.
func bracket(s string) string {
	s = strings.ReplaceAll(s, `\n`, "\n")
	s = strings.ReplaceAll(s, `\t`, "\t")
	head := 1
	if strings.HasPrefix(s[1:], "^") {
		head++
	}
	body := strings.ReplaceAll(s[head:], `\`, `\\`)
	if strings.HasPrefix(body, "]") && len(body) > 1 {
		body = `\` + body
	}
	return s[:head] + body
}
