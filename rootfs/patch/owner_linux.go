package patch

import (
	"io/fs"
	"syscall"
)

const nonblock = syscall.O_NONBLOCK

func ownerOf(i fs.FileInfo) (uid, gid uint32) {
	if st, ok := i.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}
