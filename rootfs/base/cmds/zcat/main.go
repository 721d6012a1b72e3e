// Command zcat prints the content of gzip files.
package main

import (
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/gunzip"
)

func main() { os.Exit(gunzip.Main(os.Args, true)) }
