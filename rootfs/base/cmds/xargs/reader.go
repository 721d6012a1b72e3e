package main

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// reader takes items from the input.
type reader struct {
	in        *bufio.Reader
	delimiter int    // -1: blanks and newlines, with quotes
	whole     bool   // lines are items
	end       string // an item that ends the input, if not empty
	done      bool
}

// next returns an item, and whether it is the last of its line.
func (r *reader) next() (item string, endOfLine bool, err error) {
	if r.done {
		return "", false, io.EOF
	}
	if r.delimiter >= 0 {
		text, err := r.in.ReadString(byte(r.delimiter))
		if err == io.EOF && text != "" {
			return text, true, nil
		}
		return strings.TrimSuffix(text, string(rune(r.delimiter))), true, err
	}
	item, endOfLine, err = r.quoted()
	if err == nil && r.end != "" && item == r.end {
		r.done = true
		return "", false, io.EOF
	}
	return item, endOfLine, err
}

func (r *reader) quoted() (string, bool, error) {
	var b strings.Builder
	started := false
	quote := byte(0)
	for {
		c, err := r.in.ReadByte()
		if err != nil {
			if err == io.EOF && quote != 0 {
				return "", false, errors.New("unmatched quote")
			}
			if err == io.EOF && started {
				return b.String(), true, nil
			}
			return "", false, err
		}
		switch {
		case quote != 0:
			if c == '\n' {
				return "", false, errors.New("unmatched quote")
			}
			if c == quote {
				quote = 0
			} else {
				b.WriteByte(c)
			}
			continue
		case c == '\n' || !r.whole && (c == ' ' || c == '\t'):
			if !started {
				continue
			}
			// A blank before the end of the line joins it to the next.
			return b.String(), c == '\n', nil
		case r.whole && !started && (c == ' ' || c == '\t'):
			continue
		case c == '"' || c == '\'':
			quote = c
		case c == '\\':
			if c, err = r.in.ReadByte(); err != nil {
				return "", false, err
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
		started = true
	}
}
