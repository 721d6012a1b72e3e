// Command ln makes links.
//
//	ln [-s] [-f] [-n] [-r] [-v] [-T] target [name]
//	ln [-s] [-f] [-r] [-v] [-t folder] target... [folder]
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/filecopy"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("ln", run) }

func run(e *tool.Env, args []string) {
	options, operands, ok := e.Parse(&tool.Syntax{
		Letters: "sfinrvTt:LP", Usage: "[-s] [-f] [-n] [-r] [-v] [-T] [-t folder] target... [name]", Min: 1,
		Long: "symbolic=s force=f no-dereference=n relative=r verbose=v no-target-directory=T target-directory=t logical=L physical=P",
	}, args)
	if !ok {
		return
	}
	var symbolic, force, relative, verbose bool
	var place filecopy.Place
	flags := 0
	for _, o := range options {
		switch o.Letter {
		case 's':
			symbolic = true
		case 'f':
			force = true
		case 'n':
			place.NoFollow = true
		case 'r':
			relative = true
		case 'v':
			verbose = true
		case 'T':
			place.Plain = true
		case 't':
			place.Dir = o.Value
		case 'L':
			flags = unix.AT_SYMLINK_FOLLOW
		}
	}
	if len(operands) == 1 {
		place.Dir = "."
	}
	pairs, err := place.Pairs(operands)
	if err != nil {
		e.Fail(err)
		return
	}
	for _, p := range pairs {
		target := p.From
		if symbolic && relative {
			if target, err = between(p); err != nil {
				e.Fail(err)
				continue
			}
		}
		if err := link(target, p.To, symbolic, force, flags); err != nil {
			e.Fail(err)
		} else if verbose {
			fmt.Fprintf(e.Out, "'%s' -> '%s'\n", p.To, target)
		}
	}
}

func link(target, name string, symbolic, force bool, flags int) error {
	if force {
		if info, err := os.Lstat(name); err == nil {
			if old, err := os.Lstat(target); err == nil && !symbolic && os.SameFile(info, old) {
				return nil
			}
			if !info.IsDir() {
				if err := os.Remove(name); err != nil {
					return err
				}
			}
		}
	}
	if symbolic {
		return os.Symlink(target, name)
	}
	if err := unix.Linkat(unix.AT_FDCWD, target, unix.AT_FDCWD, name, flags); err != nil {
		return &os.LinkError{Op: "link", Old: target, New: name, Err: err}
	}
	return nil
}

// between is the way from the link's folder to its target.
func between(p filecopy.Pair) (string, error) {
	from, err := filepath.Abs(filepath.Dir(p.To))
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(from); err == nil {
		from = real
	}
	to, err := filepath.Abs(p.From)
	if err != nil {
		return "", err
	}
	return filepath.Rel(from, to)
}
