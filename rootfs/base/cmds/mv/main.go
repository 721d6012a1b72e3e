// Command mv renames files, or moves them to another file system.
//
//	mv [-f] [-n] [-u] [-v] [-T] source target
//	mv [-f] [-n] [-u] [-v] [-t folder] source... [folder]
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/filecopy"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("mv", run) }

func run(e *tool.Env, args []string) {
	options, operands, ok := e.Parse(&tool.Syntax{
		Letters: "finuvTt:", Long: "force=f interactive=i no-clobber=n update=u verbose=v no-target-directory=T target-directory=t",
		Usage: "[-f] [-n] [-u] [-v] [-T] [-t folder] source... target", Min: 1,
	}, args)
	if !ok {
		return
	}
	var noClobber, update, verbose bool
	var place filecopy.Place
	for _, o := range options {
		switch o.Letter {
		case 'n':
			noClobber = true
		case 'f':
			noClobber = false
		case 'u':
			update = true
		case 'v':
			verbose = true
		case 'T':
			place.Plain = true
		case 't':
			place.Dir = o.Value
		}
	}
	pairs, err := place.Pairs(operands)
	if err != nil {
		e.Fail(err)
		return
	}
	for _, p := range pairs {
		from, err := os.Lstat(p.From)
		if err != nil {
			e.Fail(err)
			continue
		}
		if to, err := os.Lstat(p.To); err == nil {
			switch {
			case noClobber, update && !to.ModTime().Before(from.ModTime()):
				continue
			case os.SameFile(from, to):
				e.Failf("%s and %s are the same file", p.From, p.To)
				continue
			}
		}
		err = os.Rename(p.From, p.To)
		if errors.Is(err, unix.EXDEV) {
			err = across(e, p, from)
		}
		switch {
		case err != nil:
			e.Fail(err)
		case verbose:
			fmt.Fprintf(e.Out, "renamed '%s' -> '%s'\n", p.From, p.To)
		}
	}
}

var errPartial = errors.New("not moved")

// across copies to another file system and removes the source.
func across(e *tool.Env, p filecopy.Pair, from fs.FileInfo) error {
	// Like a rename: a file replaces a file, a folder only an empty folder.
	if err := os.Remove(p.To); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c := &filecopy.Copier{Recursive: true, Preserve: true, Links: true, Fail: e.Fail}
	if !c.Copy(p.From, p.To) {
		return fmt.Errorf("%s: %w", p.From, errPartial)
	}
	if from.IsDir() {
		return os.RemoveAll(p.From)
	}
	return os.Remove(p.From)
}
