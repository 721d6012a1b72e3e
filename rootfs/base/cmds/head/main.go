// Command head prints the beginning of files.
//
//	head [-n [-]lines | -c [-]bytes] [-q] [-v] [file...]
package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("head", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "n:c:qv", Long: "lines=n bytes=c quiet=q silent=q verbose=v", Number: 'n',
		Usage: "[-n lines | -c bytes] [-q] [-v] [file...]",
	}, args)
	if !ok {
		return
	}
	count, bytes, butLast, titles := int64(10), false, false, len(files) > 1
	for _, o := range options {
		switch o.Letter {
		case 'q', 'v':
			titles = o.Letter == 'v'
		default:
			var text string
			text, butLast = strings.CutPrefix(o.Value, "-")
			n, err := tool.Size(text)
			if err != nil {
				e.Fail(err)
				return
			}
			count, bytes = n, o.Letter == 'c'
		}
	}
	first := true
	e.Each(files, func(name string, r io.Reader) error {
		if titles {
			if !first {
				e.Out.WriteByte('\n')
			}
			fmt.Fprintf(e.Out, "==> %s <==\n", title(name))
		}
		first = false
		switch {
		case butLast:
			return allBut(e.Out, r, count, bytes)
		case bytes:
			_, err := io.CopyN(e.Out, r, count)
			return ignoreEOF(err)
		}
		in := bufio.NewReader(r)
		for range count {
			line, err := in.ReadSlice('\n')
			for err == bufio.ErrBufferFull {
				e.Out.Write(line)
				line, err = in.ReadSlice('\n')
			}
			e.Out.Write(line)
			if err != nil {
				return ignoreEOF(err)
			}
		}
		return nil
	})
}

func title(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// allBut leaves out the last lines or bytes.
func allBut(w io.Writer, r io.Reader, count int64, bytes bool) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	end := int64(len(b)) - count
	if !bytes {
		lines := strings.SplitAfter(string(b), "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		end = 0
		for i := int64(0); i < int64(len(lines))-count; i++ {
			end += int64(len(lines[i]))
		}
	}
	_, err = w.Write(b[:max(end, 0)])
	return err
}
