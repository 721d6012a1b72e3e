// Command ls lists files.
//
//	ls [-1AadFhilnpRrSt] [file...]
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type lister struct {
	all, almost, folder, classify, slash, human, inode, long, numeric, recursive, reverse bool
	order                                                                                 byte // t, S, U or by name
	columns                                                                               int  // 0: one name a line
	out                                                                                   *bufio.Writer
	status                                                                                int
	names                                                                                 map[string]string
}

type file struct {
	name string
	path string
	info fs.FileInfo
	st   *syscall.Stat_t
}

func main() {
	l := &lister{out: bufio.NewWriter(os.Stdout), names: map[string]string{}}
	if term.IsTerminal(1) {
		l.columns = 80
		if w, _, err := term.GetSize(1); err == nil && w > 0 {
			l.columns = w
		}
	}
	files := l.parse(os.Args[1:])
	if len(files) == 0 {
		files = []string{"."}
	}
	l.run(files)
	if l.out.Flush() != nil {
		l.status = 2
	}
	os.Exit(l.status)
}

func (l *lister) parse(args []string) (files []string) {
	for i, arg := range args {
		switch {
		case arg == "--":
			return append(files, args[i+1:]...)
		case strings.HasPrefix(arg, "--color"):
			continue
		case len(arg) < 2 || arg[0] != '-':
			files = append(files, arg)
			continue
		}
		for _, c := range arg[1:] {
			switch c {
			case '1':
				l.columns = 0
			case 'A':
				l.almost = true
			case 'a':
				l.all = true
			case 'd':
				l.folder = true
			case 'F':
				l.classify = true
			case 'h':
				l.human = true
			case 'i':
				l.inode = true
			case 'l':
				l.long = true
			case 'n':
				l.long, l.numeric = true, true
			case 'p':
				l.slash = true
			case 'R':
				l.recursive = true
			case 'r':
				l.reverse = true
			case 'S', 't', 'U':
				l.order = byte(c)
			case 'C':
				l.columns = max(l.columns, 80)
			case 'L', 'k', 'q':
			default:
				fmt.Fprintln(os.Stderr, "usage: ls [-1AadFhilnpRrSt] [file...]")
				os.Exit(2)
			}
		}
	}
	return files
}

func (l *lister) complain(err error) {
	fmt.Fprintf(os.Stderr, "ls: %v\n", err)
	l.status = 2
}

func (l *lister) run(args []string) {
	var files, folders []file
	for _, name := range args {
		f, err := l.look(name, name)
		if err != nil {
			l.complain(err)
			continue
		}
		isDir := f.info.IsDir()
		if f.info.Mode()&fs.ModeSymlink != 0 && !l.long {
			if target, err := os.Stat(name); err == nil {
				isDir = target.IsDir()
			}
		}
		if isDir && !l.folder {
			folders = append(folders, f)
		} else {
			files = append(files, f)
		}
	}
	l.sort(files)
	l.print(files)
	l.sort(folders)
	for i, d := range folders {
		if len(args) > 1 || l.recursive {
			if i > 0 || len(files) > 0 {
				fmt.Fprintln(l.out)
			}
			fmt.Fprintf(l.out, "%s:\n", d.path)
		}
		l.list(d.path)
	}
}

// list prints a folder, and with -R those below it.
func (l *lister) list(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.complain(err)
	}
	var files []file
	if l.all {
		for _, name := range []string{".", ".."} {
			if f, err := l.look(filepath.Join(dir, name), name); err == nil {
				files = append(files, f)
			}
		}
	}
	for _, e := range entries {
		if e.Name()[0] == '.' && !l.all && !l.almost {
			continue
		}
		f, err := l.look(filepath.Join(dir, e.Name()), e.Name())
		if err != nil {
			l.complain(err)
			continue
		}
		files = append(files, f)
	}
	l.sort(files)
	if l.long {
		var blocks int64
		for _, f := range files {
			blocks += f.st.Blocks
		}
		fmt.Fprintf(l.out, "total %d\n", blocks/2)
	}
	l.print(files)
	if !l.recursive {
		return
	}
	for _, f := range files {
		if f.info.IsDir() && f.name != "." && f.name != ".." {
			fmt.Fprintf(l.out, "\n%s:\n", f.path)
			l.list(f.path)
		}
	}
}

func (l *lister) look(path, name string) (file, error) {
	info, err := os.Lstat(path)
	if err != nil {
		if e, ok := err.(*os.PathError); ok {
			err = fmt.Errorf("%s: %w", path, e.Err)
		}
		return file{}, err
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	return file{name, path, info, st}, nil
}

func (l *lister) sort(files []file) {
	if l.order == 'U' {
		return
	}
	slices.SortFunc(files, func(a, b file) int {
		c := 0
		switch l.order {
		case 't':
			c = b.info.ModTime().Compare(a.info.ModTime())
		case 'S':
			c = cmp.Compare(b.info.Size(), a.info.Size())
		}
		c = cmp.Or(c, strings.Compare(a.name, b.name))
		if l.reverse {
			c = -c
		}
		return c
	})
}

func (l *lister) print(files []file) {
	if l.long {
		l.printLong(files)
		return
	}
	names := make([]string, len(files))
	width := 0
	for i, f := range files {
		names[i] = l.shown(f)
		if l.inode {
			names[i] = fmt.Sprintf("%d %s", f.st.Ino, names[i])
		}
		width = max(width, len([]rune(names[i]))+2)
	}
	perLine := 1
	if l.columns > 0 && width > 0 {
		perLine = max(1, l.columns/width)
	}
	rows := (len(names) + perLine - 1) / perLine
	for r := range rows {
		for i := r; i < len(names); i += rows {
			if i+rows < len(names) {
				fmt.Fprintf(l.out, "%-*s", width, names[i])
			} else {
				fmt.Fprint(l.out, names[i])
			}
		}
		fmt.Fprintln(l.out)
	}
}

func (l *lister) shown(f file) string {
	m := f.info.Mode()
	switch {
	case m.IsDir() && (l.slash || l.classify):
		return f.name + "/"
	case !l.classify:
	case m&fs.ModeSymlink != 0:
		return f.name + "@"
	case m&fs.ModeNamedPipe != 0:
		return f.name + "|"
	case m&fs.ModeSocket != 0:
		return f.name + "="
	case m.IsRegular() && m&0o111 != 0:
		return f.name + "*"
	}
	return f.name
}

func (l *lister) printLong(files []file) {
	rows := make([][]string, len(files))
	var widths [5]int
	for i, f := range files {
		size := strconv.FormatInt(f.info.Size(), 10)
		if f.info.Mode()&fs.ModeDevice != 0 {
			size = fmt.Sprintf("%d, %d", unix.Major(uint64(f.st.Rdev)), unix.Minor(uint64(f.st.Rdev)))
		} else if l.human {
			size = tool.Human(f.info.Size())
		}
		rows[i] = []string{strconv.FormatUint(f.st.Ino, 10), strconv.FormatUint(uint64(f.st.Nlink), 10), l.owner('u', f.st.Uid), l.owner('g', f.st.Gid), size}
		for c, text := range rows[i] {
			widths[c] = max(widths[c], len(text))
		}
	}
	for i, f := range files {
		if l.inode {
			fmt.Fprintf(l.out, "%*s ", widths[0], rows[i][0])
		}
		fmt.Fprintf(l.out, "%s %*s %-*s %-*s %*s %s %s", mode.Letters(f.st.Mode), widths[1], rows[i][1], widths[2], rows[i][2], widths[3], rows[i][3], widths[4], rows[i][4], stamp(f.info.ModTime()), l.shown(f))
		if f.info.Mode()&fs.ModeSymlink != 0 {
			if target, err := os.Readlink(f.path); err == nil {
				fmt.Fprintf(l.out, " -> %s", target)
			}
		}
		fmt.Fprintln(l.out)
	}
}

func (l *lister) owner(kind byte, id uint32) string {
	number := strconv.FormatUint(uint64(id), 10)
	if l.numeric {
		return number
	}
	key := string(kind) + number
	if name, ok := l.names[key]; ok {
		return name
	}
	name := number
	if kind == 'u' {
		if u, err := user.LookupId(number); err == nil {
			name = u.Username
		}
	} else if g, err := user.LookupGroupId(number); err == nil {
		name = g.Name
	}
	l.names[key] = name
	return name
}

// stamp leaves out the year of the last six months, and the time of others.
func stamp(t time.Time) string {
	if age := time.Since(t); age < 0 || age > 182*24*time.Hour {
		return t.Format("Jan _2  2006")
	}
	return t.Format("Jan _2 15:04")
}
