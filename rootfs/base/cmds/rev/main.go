// Command rev prints lines with their characters in reverse order.
package main

import (
	"io"
	"slices"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("rev", run) }

func run(e *tool.Env, args []string) {
	_, files, ok := e.Parse(&tool.Syntax{Usage: "[file...]"}, args)
	if !ok {
		return
	}
	e.Each(files, func(_ string, r io.Reader) error {
		return e.Lines(r, func(line string) {
			chars := []rune(line)
			slices.Reverse(chars)
			e.Out.WriteString(string(chars) + "\n")
		})
	})
}
