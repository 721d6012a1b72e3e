// Command stat prints what the kernel knows about files.
//
//	stat [-L] [-c format] file...
package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
)

func main() {
	args, follow, format := os.Args[1:], false, ""
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		arg := args[0]
		args = args[1:]
		text, isFormat := strings.CutPrefix(arg, "--format=")
		switch {
		case isFormat:
			format = text + "\n"
		case arg == "-L":
			follow = true
		case strings.HasPrefix(arg, "-c") && len(arg) > 2:
			format = arg[2:] + "\n"
		case arg == "-c" && len(args) > 0:
			format, args = args[0]+"\n", args[1:]
		case arg == "-Lc" && len(args) > 0:
			follow, format, args = true, args[0]+"\n", args[1:]
		default:
			usage()
		}
	}
	if len(args) == 0 {
		usage()
	}
	if format == "" {
		format = "  File: %N\n  Size: %-10s Blocks: %-8b IO Block: %-6o %F\nDevice: %d  Inode: %-10i Links: %h\n" +
			"Access: (%a/%A)  Uid: (%u/%U)  Gid: (%g/%G)\nAccess: %x\nModify: %y\nChange: %z\n"
	}
	status := 0
	for _, name := range args {
		var st unix.Stat_t
		flags := unix.AT_SYMLINK_NOFOLLOW
		if follow {
			flags = 0
		}
		if err := unix.Fstatat(unix.AT_FDCWD, name, &st, flags); err != nil {
			fmt.Fprintf(os.Stderr, "stat: %s: %v\n", name, err)
			status = 1
			continue
		}
		fmt.Print(expand(format, name, &st))
	}
	os.Exit(status)
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: stat [-L] [-c format] file...")
	os.Exit(2)
}

// expand replaces %letter, with an optional width before the letter.
func expand(format, name string, st *unix.Stat_t) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		end := i + 1
		for end < len(format)-1 && strings.IndexByte("-0123456789", format[end]) >= 0 {
			end++
		}
		fmt.Fprintf(&b, "%"+format[i+1:end]+"s", value(format[end], name, st))
		i = end
	}
	return b.String()
}

func value(letter byte, name string, st *unix.Stat_t) string {
	switch letter {
	case '%':
		return "%"
	case 'n':
		return name
	case 'N':
		if target, err := os.Readlink(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return name + " -> " + target
		}
		return name
	case 's':
		return strconv.FormatInt(st.Size, 10)
	case 'b':
		return strconv.FormatInt(st.Blocks, 10)
	case 'B':
		return "512"
	case 'o':
		return strconv.FormatInt(int64(st.Blksize), 10)
	case 'f':
		return strconv.FormatUint(uint64(st.Mode), 16)
	case 'F':
		return kind(st)
	case 'a':
		return strconv.FormatUint(uint64(st.Mode&0o7777), 8)
	case 'A':
		return mode.Letters(st.Mode)
	case 'd':
		return strconv.FormatUint(st.Dev, 10)
	case 'D':
		return strconv.FormatUint(st.Dev, 16)
	case 'i':
		return strconv.FormatUint(st.Ino, 10)
	case 'h':
		return strconv.FormatUint(uint64(st.Nlink), 10)
	case 't':
		return strconv.FormatUint(uint64(unix.Major(st.Rdev)), 16)
	case 'T':
		return strconv.FormatUint(uint64(unix.Minor(st.Rdev)), 16)
	case 'u':
		return strconv.FormatUint(uint64(st.Uid), 10)
	case 'g':
		return strconv.FormatUint(uint64(st.Gid), 10)
	case 'U':
		if u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10)); err == nil {
			return u.Username
		}
		return "UNKNOWN"
	case 'G':
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(st.Gid), 10)); err == nil {
			return g.Name
		}
		return "UNKNOWN"
	case 'X', 'x':
		return stamp(st.Atim, letter == 'X')
	case 'Y', 'y':
		return stamp(st.Mtim, letter == 'Y')
	case 'Z', 'z':
		return stamp(st.Ctim, letter == 'Z')
	}
	return "?"
}

func stamp(ts unix.Timespec, seconds bool) string {
	if seconds {
		return strconv.FormatInt(ts.Sec, 10)
	}
	return time.Unix(ts.Unix()).Format("2006-01-02 15:04:05.000000000 -0700")
}

func kind(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR:
		return "character special file"
	case unix.S_IFBLK:
		return "block special file"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	if st.Size == 0 {
		return "regular empty file"
	}
	return "regular file"
}
