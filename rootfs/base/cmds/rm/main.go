// Command rm removes files and trees.
//
//	rm [-f] [-i] [-r] [-d] [-v] file...
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("rm", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "fiIrRdv", Long: "force=f recursive=r dir=d verbose=v", Usage: "[-f] [-i] [-r] [-d] [-v] file...",
	}, args)
	if !ok {
		return
	}
	var force, recursive, folders, verbose, ask bool
	for _, o := range options {
		switch o.Letter {
		case 'f':
			force, ask = true, false
		case 'i':
			force, ask = false, true
		case 'r', 'R':
			recursive = true
		case 'd':
			folders = true
		case 'v':
			verbose = true
		}
	}
	if len(files) == 0 && !force {
		e.FailWith(2, errors.New("no files"))
	}
	answers := bufio.NewReader(e.In)
	for _, name := range files {
		if base := filepath.Base(name); base == "." || base == ".." || filepath.Clean(name) == "/" {
			e.Failf("refusing to remove %s", name)
			continue
		}
		info, err := os.Lstat(name)
		if err != nil {
			// A name below a file is as absent as one that is not there.
			if !force || !errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(err.Error(), "not a directory") {
				e.Fail(err)
			}
			continue
		}
		if info.IsDir() && !recursive && !folders {
			e.Failf("%s is a directory", name)
			continue
		}
		if ask {
			fmt.Fprintf(e.Err, "rm: remove %s? ", name)
			if answer, _ := answers.ReadString('\n'); !strings.HasPrefix(strings.ToLower(answer), "y") {
				continue
			}
		}
		remove := os.Remove
		if recursive {
			remove = os.RemoveAll
		}
		if err := remove(name); err != nil {
			e.Fail(err)
		} else if verbose {
			fmt.Fprintf(e.Out, "removed '%s'\n", name)
		}
	}
}
