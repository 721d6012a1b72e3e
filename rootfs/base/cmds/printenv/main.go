// Command printenv prints variables of the environment. Its status is 1 when one
// is not set.
package main

import (
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("printenv", run) }

func run(e *tool.Env, args []string) {
	options, names, ok := e.Parse(&tool.Syntax{Letters: "0", Long: "null=0", Usage: "[-0] [name...]"}, args)
	if !ok {
		return
	}
	end := "\n"
	if len(options) > 0 {
		end = "\x00"
	}
	if len(names) == 0 {
		for _, kv := range os.Environ() {
			e.Out.WriteString(kv + end)
		}
	}
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			e.Out.WriteString(value + end)
		} else {
			e.Status = 1
		}
	}
}
