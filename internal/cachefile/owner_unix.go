//go:build unix

package cachefile

import (
	"io/fs"
	"os"
	"syscall"
)

// trustedOwner tells whether only root or the caller could have made the file.
func trustedOwner(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}
