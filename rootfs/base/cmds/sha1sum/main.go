// Command sha1sum prints or compares SHA-1 digests.
package main

import (
	"crypto/sha1"
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/checksum"
)

func main() { os.Exit(checksum.Main(os.Args, sha1.New)) }
