// Package glob matches shell patterns in which * and ? stand for slashes too, as
// find wants it.
package glob

import (
	"strings"
	"unicode/utf8"
)

// Match tells whether the pattern matches all of s. A set that is not closed
// stands for itself.
func Match(pattern, s string) bool {
	// Where to go on when what follows the last star did not match.
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if p < len(pattern) {
			_, width := utf8.DecodeRuneInString(s[i:])
			if ok, used := one(pattern[p:], s[i:i+width]); ok {
				p += used
				i += width
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, width := utf8.DecodeRuneInString(s[mark:])
		mark += width
		p, i = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// one matches one character against the beginning of the pattern, of which it
// tells the length.
func one(pattern, char string) (ok bool, used int) {
	switch pattern[0] {
	case '?':
		return true, 1
	case '\\':
		if len(pattern) > 1 {
			_, n := utf8.DecodeRuneInString(pattern[1:])
			return pattern[1:1+n] == char, 1 + n
		}
	case '[':
		if ok, n := set(pattern, char); n > 0 {
			return ok, n
		}
	}
	_, n := utf8.DecodeRuneInString(pattern)
	return pattern[:n] == char, n
}

func set(pattern, char string) (ok bool, used int) {
	i := 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	c, _ := utf8.DecodeRuneInString(char)
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return ok != negated, i + 1
		}
		if pattern[i] == '\\' && i+1 < len(pattern) {
			i++
		}
		low, n := utf8.DecodeRuneInString(pattern[i:])
		i += n
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high, n = utf8.DecodeRuneInString(pattern[i+1:])
			i += 1 + n
		}
		ok = ok || c >= low && c <= high
	}
	return false, 0
}
