// Command md5sum prints or compares MD5 digests.
package main

import (
	"crypto/md5"
	"os"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/checksum"
)

func main() { os.Exit(checksum.Main(os.Args, md5.New)) }
