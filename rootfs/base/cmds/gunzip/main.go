// Command gunzip unpacks gzip files.
package main

import (
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/gz"
)

func main() { os.Exit(gz.Main(os.Args, gz.Options{Unpack: true})) }
