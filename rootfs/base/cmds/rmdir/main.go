// Command rmdir removes empty folders; with -p their parents too.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	args, parents, quiet := os.Args[1:], false, false
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-p", "--parents":
			parents = true
		case "--ignore-fail-on-non-empty":
			quiet = true
		case "--":
		default:
			usage()
		}
		args = args[1:]
	}
	if len(args) == 0 {
		usage()
	}
	status := 0
	for _, dir := range args {
		for dir = filepath.Clean(dir); dir != "." && dir != "/"; dir = filepath.Dir(dir) {
			if err := unix.Rmdir(dir); err != nil {
				if !quiet || !errors.Is(err, unix.ENOTEMPTY) {
					fmt.Fprintf(os.Stderr, "rmdir: %s: %v\n", dir, err)
					status = 1
				}
				break
			}
			if !parents {
				break
			}
		}
	}
	os.Exit(status)
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: rmdir [-p] folder...")
	os.Exit(2)
}
