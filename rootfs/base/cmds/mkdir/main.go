// Command mkdir makes folders.
//
//	mkdir [-p] [-m mode] [-v] folder...
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("mkdir", run) }

func run(e *tool.Env, args []string) {
	options, folders, ok := e.Parse(&tool.Syntax{
		Letters: "pm:v", Long: "parents=p mode=m verbose=v", Usage: "[-p] [-m mode] [-v] folder...", Min: 1,
	}, args)
	if !ok {
		return
	}
	parents, verbose := false, false
	var change mode.Change
	for _, o := range options {
		switch o.Letter {
		case 'p':
			parents = true
		case 'v':
			verbose = true
		case 'm':
			var err error
			if change, err = mode.Parse(o.Value, mode.Umask()); err != nil {
				e.Fail(err)
				return
			}
		}
	}
	for _, dir := range folders {
		made := make1
		if parents {
			made = makeAll
		}
		isNew, err := made(dir)
		if err == nil && isNew && change != nil {
			err = unix.Chmod(dir, change(0o777&^mode.Umask(), true))
		}
		switch {
		case err != nil:
			e.Fail(err)
		case isNew && verbose:
			fmt.Fprintf(e.Out, "created directory '%s'\n", dir)
		}
	}
}

func make1(dir string) (bool, error) { return true, os.Mkdir(dir, 0o777) }

// makeAll makes a folder and those above it. These can always be entered and
// written by their owner, whatever the umask.
func makeAll(dir string) (isNew bool, err error) {
	err = os.Mkdir(dir, 0o777)
	switch {
	case errors.Is(err, fs.ErrExist):
		if info, err2 := os.Stat(dir); err2 == nil && info.IsDir() {
			return false, nil
		}
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(filepath.Clean(dir))
		if parent == dir {
			return false, err
		}
		isNew, err := makeAll(parent)
		if err != nil {
			return false, err
		}
		if isNew && mode.Umask()&0o300 != 0 {
			if err := unix.Chmod(parent, 0o777&^mode.Umask()|0o300); err != nil {
				return false, err
			}
		}
		return makeAll(dir)
	}
	return err == nil, err
}
