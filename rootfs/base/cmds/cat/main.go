// Command cat prints files one after the other.
//
//	cat [-AbeEnstTuv] [file...]
package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type printer struct {
	number, nonBlank, squeeze, ends, tabs, visible bool

	out     *bufio.Writer
	line    int
	midLine bool
	blank   bool // the line before was empty
}

func main() { tool.Main("cat", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "AbeEnstTuv", Usage: "[-AbeEnstTuv] [file...]",
		Long: "show-all=A number-nonblank=b show-ends=E number=n squeeze-blank=s show-tabs=T show-nonprinting=v",
	}, args)
	if !ok {
		return
	}
	p := &printer{out: e.Out}
	plain := true
	for _, o := range options {
		plain = plain && o.Letter == 'u'
		switch o.Letter {
		case 'n':
			p.number = true
		case 'b':
			p.nonBlank = true
		case 's':
			p.squeeze = true
		}
		p.ends = p.ends || o.Letter == 'E' || o.Letter == 'e' || o.Letter == 'A'
		p.tabs = p.tabs || o.Letter == 'T' || o.Letter == 't' || o.Letter == 'A'
		p.visible = p.visible || o.Letter == 'v' || o.Letter == 'e' || o.Letter == 't' || o.Letter == 'A'
	}
	e.Each(files, func(_ string, r io.Reader) error {
		if plain {
			if _, err := io.Copy(e.Out, r); err != nil {
				return err
			}
			return e.Out.Flush()
		}
		return p.copy(r)
	})
}

func (p *printer) copy(r io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		for _, c := range buf[:n] {
			p.byte(c)
		}
		if err2 := p.out.Flush(); err2 != nil {
			return err2
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (p *printer) byte(c byte) {
	if !p.midLine {
		empty := c == '\n'
		if empty && p.blank && p.squeeze {
			return
		}
		p.blank = empty
		if p.number && !p.nonBlank || p.nonBlank && !empty {
			p.line++
			fmt.Fprintf(p.out, "%6d\t", p.line)
		}
	}
	p.midLine = c != '\n'
	switch {
	case c == '\n':
		if p.ends {
			p.out.WriteByte('$')
		}
		p.out.WriteByte(c)
	case c == '\t':
		if p.tabs {
			p.out.WriteString("^I")
		} else {
			p.out.WriteByte(c)
		}
	case p.visible:
		if c >= 0x80 {
			p.out.WriteString("M-")
			c -= 0x80
		}
		if c < ' ' || c == 0x7f {
			p.out.WriteByte('^')
			c ^= 0x40
		}
		p.out.WriteByte(c)
	default:
		p.out.WriteByte(c)
	}
}
