// Command chown changes the owner and group of files.
//
//	chown [-R] [-h] owner[:group]|:group file...
package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
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
	uid, gid, err := parse(args[0])
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

// parse gives -1 for what is not to be changed. "owner:" means the owner's group.
func parse(spec string) (uid, gid int, err error) {
	uid, gid = -1, -1
	owner, group, hasGroup := strings.Cut(spec, ":")
	if owner != "" {
		u, lookup := user.Lookup(owner)
		if lookup == nil {
			uid, _ = strconv.Atoi(u.Uid)
		} else if uid, err = strconv.Atoi(owner); err != nil || uid < 0 {
			return 0, 0, fmt.Errorf("no user %q", owner)
		}
		if hasGroup && group == "" {
			if lookup != nil {
				return 0, 0, fmt.Errorf("no login group of %q", owner)
			}
			gid, _ = strconv.Atoi(u.Gid)
		}
	}
	if group != "" {
		if g, lookup := user.LookupGroup(group); lookup == nil {
			gid, _ = strconv.Atoi(g.Gid)
		} else if gid, err = strconv.Atoi(group); err != nil || gid < 0 {
			return 0, 0, fmt.Errorf("no group %q", group)
		}
	}
	return uid, gid, nil
}
