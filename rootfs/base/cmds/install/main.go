// Command install copies files and sets their attributes, or makes folders.
//
//	install [-D] [-m mode] [-o owner] [-g group] [-p] [-v] [-T] source target
//	install [-m mode] [-o owner] [-g group] [-p] [-v] [-t folder] source... [folder]
//	install -d [-m mode] [-o owner] [-g group] folder...
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/filecopy"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/owner"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type installer struct {
	change   mode.Change
	uid, gid int
}

func main() { tool.Main("install", run) }

func run(e *tool.Env, args []string) {
	options, operands, ok := e.Parse(&tool.Syntax{
		Letters: "bcCdDm:o:g:psvTt:", Min: 1, Usage: "[-d] [-D] [-m mode] [-o owner] [-g group] [-p] [-v] [-T] [-t folder] source... target",
		Long: "compare=C directory=d mode=m owner=o group=g preserve-timestamps=p strip=s verbose=v no-target-directory=T target-directory=t",
	}, args)
	if !ok {
		return
	}
	in := &installer{uid: -1, gid: -1, change: func(uint32, bool) uint32 { return 0o755 }}
	var folders, parents, verbose, times bool
	var place filecopy.Place
	for _, o := range options {
		var err error
		switch o.Letter {
		case 'd':
			folders = true
		case 'D':
			parents = true
		case 'm':
			in.change, err = mode.Parse(o.Value, 0)
		case 'o':
			in.uid, _, err = owner.Parse(o.Value)
		case 'g':
			_, in.gid, err = owner.Parse(":" + o.Value)
		case 'p':
			times = true
		case 'v':
			verbose = true
		case 'T':
			place.Plain = true
		case 't':
			place.Dir = o.Value
		}
		if err != nil {
			e.Fail(err)
			return
		}
	}
	if folders {
		for _, dir := range operands {
			err := os.MkdirAll(dir, 0o755)
			if err == nil {
				err = in.finish(dir, true)
			}
			if err != nil {
				e.Fail(err)
			}
		}
		return
	}
	if parents && (place.Dir != "" || len(operands) == 2) {
		dir := place.Dir
		if dir == "" {
			dir = filepath.Dir(operands[1])
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			e.Fail(err)
			return
		}
	}
	pairs, err := place.Pairs(operands)
	if err != nil {
		e.Fail(err)
		return
	}
	c := &filecopy.Copier{Fail: e.Fail, Preserve: times}
	for _, p := range pairs {
		if verbose {
			fmt.Fprintf(e.Out, "'%s' -> '%s'\n", p.From, p.To)
		}
		// A new file: the old one may be a program that runs.
		from, err := os.Stat(p.From)
		if to, err2 := os.Lstat(p.To); err == nil && err2 == nil && !to.IsDir() && !os.SameFile(from, to) {
			err = os.Remove(p.To)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.Fail(err)
			continue
		}
		if c.Copy(p.From, p.To) {
			if err := in.finish(p.To, false); err != nil {
				e.Fail(err)
			}
		}
	}
}

// finish sets owner and mode, in this order: the first takes bits of the second away.
func (in *installer) finish(path string, isDir bool) error {
	if in.uid >= 0 || in.gid >= 0 {
		if err := os.Chown(path, in.uid, in.gid); err != nil {
			return err
		}
	}
	if err := unix.Chmod(path, in.change(0, isDir)); err != nil {
		return &fs.PathError{Op: "chmod", Path: path, Err: err}
	}
	return nil
}
