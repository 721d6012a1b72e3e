// Command find walks trees and does something with the files that an expression
// selects.
//
//	find [-H|-L|-P] [file...] [expression]
//
// It knows -name -iname -path -ipath -type -size -empty -newer -mtime -mmin
// -atime -amin -ctime -cmin -perm -user -group -uid -gid -links -inum -readable
// -writable -executable -true -false -maxdepth -mindepth -depth -xdev -prune
// -print -print0 -printf -ls -delete -quit -exec and -execdir with ; or +, and
// ! -not -a -o , ( ).
package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

// walker is one run of find.
type walker struct {
	e                  *tool.Env
	follow             byte // P, H or L
	minDepth, maxDepth int
	depthFirst, xdev   bool
	expr               node
	batches            []*batch

	prune, quit bool
}

// file is what the expression looks at.
type file struct {
	path, start string
	depth       int
	st          unix.Stat_t
}

func (f *file) name() string {
	if base := filepath.Base(f.path); base != "" {
		return base
	}
	return f.path
}

func (f *file) isDir() bool { return f.st.Mode&unix.S_IFMT == unix.S_IFDIR }

func main() { tool.Main("find", run) }

func run(e *tool.Env, args []string) {
	w := &walker{e: e, follow: 'P', maxDepth: 1 << 30}
	for len(args) > 0 && (args[0] == "-H" || args[0] == "-L" || args[0] == "-P") {
		w.follow, args = args[0][1], args[1:]
	}
	var starts []string
	for len(args) > 0 && !(len(args[0]) > 1 && args[0][0] == '-') && args[0] != "(" && args[0] != "!" {
		starts, args = append(starts, args[0]), args[1:]
	}
	if len(starts) == 0 {
		starts = []string{"."}
	}
	p := &parser{w: w, args: args}
	if err := p.parse(); err != nil {
		e.Fail(err)
		return
	}
	for _, start := range starts {
		w.start(start)
		if w.quit {
			break
		}
	}
	for _, b := range w.batches {
		b.flush(w)
	}
}

func (w *walker) stat(path string, depth int, st *unix.Stat_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if w.follow == 'L' || w.follow == 'H' && depth == 0 {
		flags = 0
	}
	err := unix.Fstatat(unix.AT_FDCWD, path, st, flags)
	if err != nil && flags == 0 {
		err = unix.Fstatat(unix.AT_FDCWD, path, st, unix.AT_SYMLINK_NOFOLLOW) // the link leads nowhere
	}
	if err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

func (w *walker) start(start string) {
	f := &file{path: start, start: start}
	if err := w.stat(start, 0, &f.st); err != nil {
		w.e.Fail(err)
		return
	}
	w.walk(f, nil)
}

var errLoop = errors.New("a link makes this tree endless")

// walk visits a file and those below it. above are the folders that it is in.
func (w *walker) walk(f *file, above []inode) {
	w.prune = false
	if !w.depthFirst {
		w.visit(f)
	}
	if f.isDir() && f.depth < w.maxDepth && !w.prune && !w.quit {
		w.folder(f, above)
	}
	if w.depthFirst && !w.quit {
		w.visit(f)
	}
}

func (w *walker) folder(f *file, above []inode) {
	self := inode{f.st.Dev, f.st.Ino}
	for _, a := range above {
		if a == self {
			w.e.Fail(&fs.PathError{Op: "read", Path: f.path, Err: errLoop})
			return
		}
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		w.e.Fail(err)
	}
	for _, entry := range entries {
		child := &file{path: strings.TrimSuffix(f.path, "/") + "/" + entry.Name(), start: f.start, depth: f.depth + 1}
		if err := w.stat(child.path, child.depth, &child.st); err != nil {
			if !errors.Is(err, fs.ErrNotExist) { // gone meanwhile
				w.e.Fail(err)
			}
			continue
		}
		if w.xdev && child.st.Dev != f.st.Dev {
			continue
		}
		w.walk(child, append(above, self))
		if w.quit {
			return
		}
	}
}

func (w *walker) visit(f *file) {
	if f.depth >= w.minDepth {
		w.expr(f)
	}
}
