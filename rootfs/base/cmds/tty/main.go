// Command tty prints the name of the terminal on standard input. Its status is 1
// when there is none.
package main

import (
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("tty", run) }

func run(e *tool.Env, args []string) {
	options, _, ok := e.Parse(&tool.Syntax{Letters: "s", Long: "silent=s quiet=s", Usage: "[-s]"}, args)
	if !ok {
		return
	}
	name := "not a tty"
	f, isFile := e.In.(*os.File)
	if isFile && term.IsTerminal(int(f.Fd())) {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err == nil {
			name = target
		} else {
			name = "/dev/tty"
		}
	} else {
		e.Status = 1
	}
	if len(options) == 0 {
		fmt.Fprintln(e.Out, name)
	}
}
