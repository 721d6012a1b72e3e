// Command df prints how full the file systems are.
//
//	df [-a] [-h] [-i] [-k] [-m] [-P] [-T] [file...]
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type mount struct{ source, dir, kind string }

func main() { tool.Main("df", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "ahHikmPTt:x:l", Long: "all=a human-readable=h inodes=i portability=P print-type=T type=t exclude-type=x local=l",
		Usage: "[-a] [-h] [-i] [-k] [-m] [-P] [-T] [-t type] [-x type] [file...]",
	}, args)
	if !ok {
		return
	}
	var all, human, inodes, kinds bool
	unit, head := int64(1024), "1K-blocks"
	only, not := "", ""
	for _, o := range options {
		switch o.Letter {
		case 'a':
			all = true
		case 'h', 'H':
			human, head = true, "Size"
		case 'i':
			inodes = true
		case 'm':
			unit, head = 1<<20, "1M-blocks"
		case 'T':
			kinds = true
		case 't':
			only = o.Value
		case 'x':
			not = o.Value
		}
	}
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		e.Fail(err)
		return
	}
	mounts := parse(string(text))
	if len(files) > 0 {
		var some []mount
		for _, name := range files {
			m, err := of(name, mounts)
			if err != nil {
				e.Fail(err)
				continue
			}
			some = append(some, m)
		}
		mounts, all = some, true
		if len(mounts) == 0 {
			return
		}
	}
	rows := [][]string{{"Filesystem", "Type", head, "Used", "Available", "Use%", "Mounted on"}}
	if inodes {
		copy(rows[0][2:], []string{"Inodes", "IUsed", "IFree", "IUse%"})
	}
	for _, m := range mounts {
		var st unix.Statfs_t
		if unix.Statfs(m.dir, &st) != nil || st.Blocks == 0 && !all || only != "" && m.kind != only || m.kind == not {
			continue
		}
		size, free, usable, scale := int64(st.Blocks), int64(st.Bfree), int64(st.Bavail), st.Frsize
		if inodes {
			size, free, usable, scale = int64(st.Files), int64(st.Ffree), int64(st.Ffree), 1
		}
		show := func(n int64) string {
			switch {
			case human:
				return tool.Human(n * scale)
			case inodes:
				return strconv.FormatInt(n, 10)
			}
			return strconv.FormatInt((n*scale+unit-1)/unit, 10)
		}
		used := size - free
		rows = append(rows, []string{m.source, m.kind, show(size), show(used), show(usable), percent(used, usable), m.dir})
	}
	print(e, rows, kinds)
}

// percent is rounded up, as df always has.
func percent(used, usable int64) string {
	total := used + usable
	if total <= 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", (used*100+total-1)/total)
}

func print(e *tool.Env, rows [][]string, kinds bool) {
	var widths [6]int
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], len(row[i]))
		}
	}
	for _, row := range rows {
		fmt.Fprintf(e.Out, "%-*s ", widths[0], row[0])
		if kinds {
			fmt.Fprintf(e.Out, "%-*s ", widths[1], row[1])
		}
		for i := 2; i < 6; i++ {
			fmt.Fprintf(e.Out, "%*s ", widths[i], row[i])
		}
		fmt.Fprintln(e.Out, row[6])
	}
}

// parse reads a table of mounts. Blanks in its names are written in octal.
func parse(text string) []mount {
	var list []mount
	plain := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 3 {
			list = append(list, mount{plain.Replace(f[0]), plain.Replace(f[1]), f[2]})
		}
	}
	return list
}

// of finds the mount that a file is on: the last of the innermost ones.
func of(name string, mounts []mount) (mount, error) {
	path, err := filepath.EvalSymlinks(name)
	if err != nil {
		return mount{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return mount{}, err
	}
	best := mount{"-", path, "-"}
	length := 0
	for _, m := range mounts {
		if below(path, m.dir) && len(m.dir) >= length {
			best, length = m, len(m.dir)
		}
	}
	return best, nil
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
