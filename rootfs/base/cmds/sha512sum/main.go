// Command sha512sum prints or compares SHA-512 digests.
package main

import (
	"crypto/sha512"
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/checksum"
)

func main() { os.Exit(checksum.Main(os.Args, sha512.New)) }
