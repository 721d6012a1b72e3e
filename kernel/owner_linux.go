package kernel

import (
	"io/fs"
	"os"
	"syscall"
)

// trustedOwner reports whether a cache entry belongs to root or to this process.
func trustedOwner(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && (sys.Uid == 0 || int(sys.Uid) == os.Geteuid())
}
