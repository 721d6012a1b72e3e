// Command od prints bytes as numbers or characters.
//
//	od [-A d|o|x|n] [-t type]... [-j skip] [-N count] [-w width] [-v] [-abcdosx] [file...]
//
// Types are a, c, and d, o, u and x with a size of 1, 2, 4 or 8 or the letters
// C, S, I and L; a z behind one adds the characters.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

// form is one way to show a line of bytes.
type form struct {
	letter byte // a, c, d, o, u or x
	size   int
	chars  bool
}

type dumper struct {
	e       *tool.Env
	forms   []form
	address byte
	width   int
	all     bool
}

func main() { tool.Main("od", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "A:t:j:N:w:vabcdosxi", Usage: "[-A d|o|x|n] [-t type]... [-j skip] [-N count] [-w width] [-v] [-abcdosx] [file...]",
		Long: "address-radix=A format=t skip-bytes=j read-bytes=N width=w output-duplicates=v",
	}, args)
	if !ok {
		return
	}
	d := &dumper{e: e, address: 'o', width: 16}
	skip, count := int64(0), int64(math.MaxInt64)
	short := map[byte]string{'a': "a", 'b': "o1", 'c': "c", 'd': "u2", 'o': "o2", 's': "d2", 'x': "x2", 'i': "d4"}
	for _, o := range options {
		var err error
		switch o.Letter {
		case 'A':
			if len(o.Value) != 1 || !strings.Contains("doxn", o.Value) {
				err = fmt.Errorf("bad radix %q", o.Value)
			} else {
				d.address = o.Value[0]
			}
		case 't':
			err = d.add(o.Value)
		case 'j':
			skip, err = tool.Size(o.Value)
		case 'N':
			count, err = tool.Size(o.Value)
		case 'w':
			if d.width, err = strconv.Atoi(o.Value); err == nil && (d.width < 1 || d.width > 4096) {
				err = fmt.Errorf("bad width %q", o.Value)
			}
		case 'v':
			d.all = true
		default:
			err = d.add(short[o.Letter])
		}
		if err != nil {
			e.Fail(err)
			return
		}
	}
	if d.forms == nil {
		d.forms = []form{{'o', 2, false}}
	}
	// Several files are one stream.
	var readers []io.Reader
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, name := range files {
		f, err := e.Open(name)
		if err != nil {
			e.Fail(err)
			continue
		}
		defer f.Close()
		readers = append(readers, f)
	}
	in := io.MultiReader(readers...)
	if n, err := io.CopyN(io.Discard, in, skip); err != nil {
		e.Failf("cannot skip %d bytes, there are %d", skip, n)
		return
	}
	if err := d.dump(io.LimitReader(in, count), skip); err != nil {
		e.Fail(err)
	}
}

// add reads types, such as x1z or cd4.
func (d *dumper) add(types string) error {
	if types == "" {
		return errors.New("no type")
	}
	for types != "" {
		f := form{letter: types[0], size: 1}
		types = types[1:]
		switch {
		case f.letter == 'a' || f.letter == 'c':
		case strings.IndexByte("doux", f.letter) < 0:
			return fmt.Errorf("bad type %q", f.letter)
		default:
			f.size = 4
			if types != "" {
				if size, ok := map[byte]int{'1': 1, '2': 2, '4': 4, '8': 8, 'C': 1, 'S': 2, 'I': 4, 'L': 8}[types[0]]; ok {
					f.size, types = size, types[1:]
				}
			}
		}
		if strings.HasPrefix(types, "z") {
			f.chars, types = true, types[1:]
		}
		d.forms = append(d.forms, f)
	}
	return nil
}

func (d *dumper) dump(r io.Reader, at int64) error {
	line, last := make([]byte, d.width), []byte(nil)
	starred := false
	for {
		n, err := io.ReadFull(r, line)
		if n > 0 {
			switch {
			case !d.all && last != nil && n == d.width && bytes.Equal(line, last):
				if !starred {
					d.e.Out.WriteString("*\n")
				}
				starred = true
			default:
				starred = false
				d.line(at, line[:n])
				last = append(last[:0], line[:n]...)
			}
			at += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if text := d.offset(at); text != "" {
				fmt.Fprintln(d.e.Out, text)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *dumper) offset(at int64) string {
	switch d.address {
	case 'd':
		return fmt.Sprintf("%07d", at)
	case 'o':
		return fmt.Sprintf("%07o", at)
	case 'x':
		return fmt.Sprintf("%06x", at)
	}
	return ""
}

// line shows the bytes in all forms, one below the other. All have the columns
// of the widest.
func (d *dumper) line(at int64, b []byte) {
	perByte := 0.0
	for _, f := range d.forms {
		perByte = math.Max(perByte, float64(f.digits()+1)/float64(f.size))
	}
	prefix := d.offset(at)
	for _, f := range d.forms {
		width := int(math.Ceil(perByte * float64(f.size)))
		d.e.Out.WriteString(prefix)
		prefix = strings.Repeat(" ", len(prefix))
		for i := 0; i < len(b); i += f.size {
			var word [8]byte
			copy(word[:f.size], b[i:])
			fmt.Fprintf(d.e.Out, "%*s", width, f.show(word))
		}
		if f.chars {
			missing := (d.width+f.size-1)/f.size - (len(b)+f.size-1)/f.size
			d.e.Out.WriteString(strings.Repeat(" ", missing*width) + "  >")
			for _, c := range b {
				if c < ' ' || c > '~' {
					c = '.'
				}
				d.e.Out.WriteByte(c)
			}
			d.e.Out.WriteByte('<')
		}
		d.e.Out.WriteByte('\n')
	}
}

// digits of the longest value.
func (f form) digits() int {
	bits := f.size * 8
	switch f.letter {
	case 'x':
		return bits / 4
	case 'o':
		return (bits + 2) / 3
	case 'u':
		return map[int]int{1: 3, 2: 5, 4: 10, 8: 20}[f.size]
	case 'd':
		return map[int]int{1: 4, 2: 6, 4: 11, 8: 20}[f.size]
	}
	return 3
}

var names = strings.Fields("nul soh stx etx eot enq ack bel bs ht nl vt ff cr so si dle dc1 dc2 dc3 dc4 nak syn etb can em sub esc fs gs rs us sp")

func (f form) show(word [8]byte) string {
	v := binary.LittleEndian.Uint64(word[:])
	switch f.letter {
	case 'a':
		switch c := word[0] & 0x7f; {
		case int(c) < len(names):
			return names[c]
		case c == 0x7f:
			return "del"
		default:
			return string(rune(c))
		}
	case 'c':
		if at := strings.IndexByte("\x00\a\b\t\n\v\f\r", word[0]); at >= 0 {
			return `\` + "0abtnvfr"[at:at+1]
		}
		if word[0] < ' ' || word[0] > '~' {
			return fmt.Sprintf("%03o", word[0])
		}
		return string(rune(word[0]))
	case 'd':
		shift := 64 - 8*f.size
		return strconv.FormatInt(int64(v<<shift)>>shift, 10)
	case 'u':
		return strconv.FormatUint(v, 10)
	case 'o':
		return fmt.Sprintf("%0*o", f.digits(), v)
	}
	return fmt.Sprintf("%0*x", f.digits(), v)
}
