package main

import (
	"fmt"
	"strconv"
	"strings"
)

// classes tells which bytes a class holds.
var classes = map[string]func(c byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 0x7f },
	"digit":  isDigit,
	"graph":  isGraph,
	"lower":  func(c byte) bool { return c >= 'a' && c <= 'z' },
	"print":  func(c byte) bool { return isGraph(c) || c == ' ' },
	"punct":  func(c byte) bool { return isGraph(c) && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' },
	"upper":  func(c byte) bool { return c >= 'A' && c <= 'Z' },
	"xdigit": func(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' },
}

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isGraph(c byte) bool { return c > ' ' && c < 0x7f }

// expand lists the bytes of a set. [c*] makes it as long as fill.
func expand(text string, fill int) ([]byte, error) {
	var set []byte
	starAt, starByte := -1, byte(0)
	for text != "" {
		if rest, ok := strings.CutPrefix(text, "[:"); ok {
			if name, rest, ok := strings.Cut(rest, ":]"); ok {
				in := classes[name]
				if in == nil {
					return nil, fmt.Errorf("unknown class %q", name)
				}
				for c := range 256 {
					if in(byte(c)) {
						set = append(set, byte(c))
					}
				}
				text = rest
				continue
			}
		}
		if len(text) >= 5 && text[:2] == "[=" && text[3:5] == "=]" {
			set, text = append(set, text[2]), text[5:]
			continue
		}
		if text[0] == '[' && len(text) > 3 {
			c, rest := one(text[1:])
			if count, after, ok := strings.Cut(rest, "]"); ok && strings.HasPrefix(count, "*") {
				base := 10
				if strings.HasPrefix(count, "*0") {
					base = 8
				}
				n, err := strconv.ParseUint(count[1:], base, 16)
				if err == nil || count == "*" {
					if n == 0 {
						starAt, starByte = len(set), c
					}
					for range n {
						set = append(set, c)
					}
					text = after
					continue
				}
			}
		}
		from, rest := one(text)
		to := from
		if len(rest) > 1 && rest[0] == '-' {
			to, rest = one(rest[1:])
			if to < from {
				return nil, fmt.Errorf("range %q goes backwards", text[:len(text)-len(rest)])
			}
		}
		for c := int(from); c <= int(to); c++ {
			set = append(set, byte(c))
		}
		text = rest
	}
	if starAt >= 0 {
		tail := string(set[starAt:])
		for len(set) < fill {
			set = append(set[:len(set)-len(tail)], append([]byte{starByte}, tail...)...)
		}
	}
	return set, nil
}

// one takes the first byte off, which may be written as an escape.
func one(text string) (byte, string) {
	if text[0] != '\\' || len(text) == 1 {
		return text[0], text[1:]
	}
	n := 1
	for n < len(text) && n < 4 && text[n] >= '0' && text[n] <= '7' {
		n++
	}
	if v, err := strconv.ParseUint(text[1:n], 8, 8); err == nil {
		return byte(v), text[n:]
	}
	if at := strings.IndexByte("abfnrtv", text[1]); at >= 0 {
		return "\a\b\f\n\r\t\v"[at], text[2:]
	}
	return text[1], text[2:]
}
