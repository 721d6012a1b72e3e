// Command hutch-agent is process 1 of every guest. It is of no use elsewhere.
package main

import (
	"os"

	"github.com/hutchvm/hutch/agent/guest"
)

// build names this build; the linker sets it.
var build = "unknown"

func main() {
	if err := guest.Main(os.Args, build); err != nil {
		os.Stderr.WriteString("hutch-agent: " + err.Error() + "\n")
	}
	os.Exit(1)
}
