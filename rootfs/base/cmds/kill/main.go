// Command kill sends signals. The shell has it built in; this is for others.
//
//	kill [-signal | -s signal] pid...
//	kill -l|-L [signal...]
package main

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/signame"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("kill", run) }

var errUsage = errors.New("usage: kill [-signal] pid... | -l [signal...]")

func run(e *tool.Env, args []string) {
	sig := unix.SIGTERM
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		option, name := args[0], args[0][1:]
		args = args[1:]
		switch {
		case option == "-l" || option == "-L" || option == "--list":
			if err := signame.List(e.Out, args); err != nil {
				e.Fail(err)
			}
			return
		case option == "--":
			name = ""
		case (name == "s" || name == "n") && len(args) > 0:
			name, args = args[0], args[1:]
		}
		if name != "" {
			var ok bool
			if sig, ok = signame.Parse(name); !ok {
				e.Failf("%s: unknown signal", name)
				return
			}
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
		}
	}
	if len(args) == 0 {
		e.FailWith(2, errUsage)
	}
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err != nil {
			e.Failf("%s: not a process ID", arg)
		} else if err := unix.Kill(pid, sig); err != nil {
			e.Fail(fmt.Errorf("(%d): %w", pid, err))
		}
	}
}
