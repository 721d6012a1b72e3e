// Command sha256sum prints or compares SHA-256 digests.
package main

import (
	"crypto/sha256"
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/checksum"
)

func main() { os.Exit(checksum.Main(os.Args, sha256.New)) }
