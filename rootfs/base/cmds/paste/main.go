// Command paste joins lines.
//
//	paste [-s] [-d delimiters] [file...]
package main

import (
	"bufio"
	"io"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("paste", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "sd:", Long: "serial=s delimiters=d", Usage: "[-s] [-d delimiters] [file...]",
	}, args)
	if !ok {
		return
	}
	serial, between := false, []string{"\t"}
	for _, o := range options {
		if o.Letter == 's' {
			serial = true
			continue
		}
		// An empty delimiter is written \0.
		text := strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\\`, `\`, `\0`, "\x00").Replace(o.Value)
		between = strings.Split(text, "")
		for i := range between {
			between[i] = strings.Trim(between[i], "\x00")
		}
		if len(between) == 0 {
			between = []string{""}
		}
	}
	if serial {
		e.Each(files, func(_ string, r io.Reader) error {
			n := 0
			err := e.Lines(r, func(line string) {
				if n > 0 {
					e.Out.WriteString(between[(n-1)%len(between)])
				}
				e.Out.WriteString(line)
				n++
			})
			e.Out.WriteByte('\n')
			return err
		})
		return
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	stdin := bufio.NewReader(e.In)
	var columns []*bufio.Reader
	for _, name := range files {
		if name == "-" {
			columns = append(columns, stdin) // its lines are dealt out in turn
			continue
		}
		f, err := e.Open(name)
		if err != nil {
			e.Fail(err)
			return
		}
		defer f.Close()
		columns = append(columns, bufio.NewReader(f))
	}
	for {
		var row strings.Builder
		any := false
		for i, in := range columns {
			line, err := in.ReadString('\n')
			if err != nil && err != io.EOF {
				e.Fail(err)
				return
			}
			any = any || line != ""
			row.WriteString(strings.TrimSuffix(line, "\n"))
			if i+1 < len(columns) {
				row.WriteString(between[i%len(between)])
			}
		}
		if !any {
			return
		}
		e.Out.WriteString(row.String() + "\n")
	}
}
