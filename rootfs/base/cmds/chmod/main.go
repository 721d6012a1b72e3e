// Command chmod changes the permissions of files.
//
//	chmod [-R] [-v] [-f] mode file...
//	chmod [-R] [-v] [-f] --reference=file file...
package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type changer struct {
	e                    *tool.Env
	change               mode.Change
	verbose, less, quiet bool
}

func main() { tool.Main("chmod", run) }

func run(e *tool.Env, args []string) {
	// A mode such as -x looks like an option.
	var clause string
	for i, a := range args {
		if a == "--" {
			break
		}
		if len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "rwxXstugoa,+-=") == "" {
			clause = a
			args = append(append([]string{}, args[:i]...), args[i+1:]...)
			break
		}
	}
	options, rest, ok := e.Parse(&tool.Syntax{
		Letters: "RvcfF:", Long: "recursive=R verbose=v changes=c quiet=f silent=f reference=F",
		Usage: "[-R] [-v] [-f] mode file...", Min: 1,
	}, args)
	if !ok {
		return
	}
	c := &changer{e: e}
	recursive := false
	var err error
	for _, o := range options {
		switch o.Letter {
		case 'R':
			recursive = true
		case 'v':
			c.verbose = true
		case 'c':
			c.verbose, c.less = true, true
		case 'f':
			c.quiet = true
		case 'F':
			var st unix.Stat_t
			if err = unix.Stat(o.Value, &st); err != nil {
				e.Failf("%s: %w", o.Value, err)
				return
			}
			c.change = func(uint32, bool) uint32 { return st.Mode & 0o7777 }
		}
	}
	if c.change == nil {
		if clause == "" {
			clause, rest = rest[0], rest[1:]
		}
		if c.change, err = mode.Parse(clause, mode.Umask()); err != nil {
			e.Fail(err)
			return
		}
	}
	if len(rest) == 0 {
		e.FailWith(2, fmt.Errorf("no files"))
	}
	for _, name := range rest {
		if !recursive {
			c.set(name)
			continue
		}
		err := filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil && path != name:
				c.fail(err)
			case err != nil && d == nil:
				return err
			case err != nil:
				c.fail(err)
			case path == name || d.Type()&fs.ModeSymlink == 0: // links below have no permissions
				c.set(path)
			}
			return nil
		})
		if err != nil {
			c.fail(err)
		}
	}
}

func (c *changer) fail(err error) {
	if c.quiet {
		c.e.Status = max(c.e.Status, 1)
		return
	}
	c.e.Fail(err)
}

func (c *changer) set(path string) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		c.fail(&fs.PathError{Op: "stat", Path: path, Err: err})
		return
	}
	old := st.Mode & 0o7777
	now := c.change(old, st.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err := unix.Chmod(path, now); err != nil {
		c.fail(&fs.PathError{Op: "chmod", Path: path, Err: err})
		return
	}
	if c.verbose && (!c.less || now != old) {
		fmt.Fprintf(c.e.Out, "mode of '%s' changed from %04o to %04o\n", path, old, now)
	}
}
