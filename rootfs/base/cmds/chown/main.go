// Command chown changes the owner and group of files.
//
//	chown [-R] [-h] owner[:group]|:group file...
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/owner"
)

func main() {
	args, recursive, links := os.Args[1:], false, false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		for _, c := range args[0][1:] {
			switch c {
			case 'R':
				recursive = true
			case 'h':
				links = true
			case '-':
			default:
				usage()
			}
		}
		args = args[1:]
	}
	if len(args) < 2 {
		usage()
	}
	uid, gid, err := owner.Parse(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "chown: %v\n", err)
		os.Exit(1)
	}
	status := 0
	change := func(path string, link bool) {
		set := os.Chown
		if link {
			set = os.Lchown
		}
		if err := set(path, uid, gid); err != nil {
			fmt.Fprintf(os.Stderr, "chown: %v\n", err)
			status = 1
		}
	}
	for _, file := range args[1:] {
		if !recursive {
			change(file, links)
			continue
		}
		// Below a folder links are never followed.
		err := filepath.WalkDir(file, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			change(path, true)
			return nil
		})
		if err != nil {
			fmt.Fprintf(os.Stderr, "chown: %v\n", err)
			status = 1
		}
	}
	os.Exit(status)
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: chown [-R] [-h] owner[:group] file...")
	os.Exit(2)
}
