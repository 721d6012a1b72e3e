// Package mode shows file modes as ls and stat do.
package mode

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Letters gives the ten letters of a mode, such as drwxr-xr-t.
func Letters(mode uint32) string {
	first := map[uint32]string{unix.S_IFDIR: "d", unix.S_IFLNK: "l", unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p", unix.S_IFSOCK: "s"}[mode&unix.S_IFMT]
	if first == "" {
		first = "-"
	}
	rwx := []byte(fs.FileMode(mode & 0o777).String()[1:])
	for _, special := range []struct {
		bit   uint32
		at    int
		small byte
	}{{unix.S_ISUID, 2, 's'}, {unix.S_ISGID, 5, 's'}, {unix.S_ISVTX, 8, 't'}} {
		if mode&special.bit != 0 {
			c := special.small
			if rwx[special.at] != 'x' {
				c -= 'a' - 'A'
			}
			rwx[special.at] = c
		}
	}
	return first + string(rwx)
}
