// Command du sums up the space that files take.
//
//	du [-a] [-b] [-c] [-d depth] [-h] [-k] [-L] [-m] [-s] [-x] [file...]
package main

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type inode struct{ dev, ino uint64 }

type summer struct {
	e                               *tool.Env
	all, apparent, human, follow, x bool
	unit                            int64
	depth                           int
	seen                            map[inode]bool
}

func main() { tool.Main("du", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "abcd:hkLmsxD", Long: "all=a bytes=b total=c max-depth=d human-readable=h dereference=L summarize=s one-file-system=x",
		Usage: "[-a] [-b] [-c] [-d depth] [-h] [-k] [-L] [-m] [-s] [-x] [file...]",
	}, args)
	if !ok {
		return
	}
	s := &summer{e: e, unit: 1024, depth: 1 << 30, seen: map[inode]bool{}}
	total := false
	for _, o := range options {
		switch o.Letter {
		case 'a':
			s.all = true
		case 'b':
			s.apparent, s.unit = true, 1
		case 'c':
			total = true
		case 'd':
			n, err := strconv.Atoi(o.Value)
			if err != nil || n < 0 {
				e.Failf("bad depth %q", o.Value)
				return
			}
			s.depth = n
		case 'h':
			s.human = true
		case 'k':
			s.unit = 1024
		case 'L':
			s.follow = true
		case 'm':
			s.unit = 1 << 20
		case 's':
			s.depth = 0
		case 'x':
			s.x = true
		}
	}
	if len(files) == 0 {
		files = []string{"."}
	}
	var sum int64
	for _, name := range files {
		sum += s.walk(name, 0, 0)
	}
	if total {
		s.print(sum, "total")
	}
}

func (s *summer) print(bytes int64, name string) {
	text := tool.Human(bytes)
	if !s.human {
		text = strconv.FormatInt((bytes+s.unit-1)/s.unit, 10)
	}
	fmt.Fprintf(s.e.Out, "%s\t%s\n", text, name)
}

// walk returns what a file and those below it take. Files with several names
// count once.
func (s *summer) walk(path string, depth int, device uint64) int64 {
	var st unix.Stat_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if s.follow {
		flags = 0
	}
	if err := unix.Fstatat(unix.AT_FDCWD, path, &st, flags); err != nil {
		s.e.Fail(&fs.PathError{Op: "stat", Path: path, Err: err})
		return 0
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if s.x && depth > 0 && st.Dev != device {
		return 0
	}
	if isDir || st.Nlink > 1 || s.follow {
		key := inode{st.Dev, st.Ino}
		if s.seen[key] {
			return 0
		}
		s.seen[key] = true
	}
	sum := st.Blocks * 512
	if s.apparent {
		sum = st.Size
	}
	if isDir {
		entries, err := os.ReadDir(path)
		if err != nil {
			s.e.Fail(err)
		}
		for _, entry := range entries {
			sum += s.walk(strings.TrimSuffix(path, "/")+"/"+entry.Name(), depth+1, st.Dev)
		}
	}
	if depth == 0 || depth <= s.depth && (isDir || s.all) {
		s.print(sum, path)
	}
	return sum
}
