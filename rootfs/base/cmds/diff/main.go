// Command diff compares files and trees.
//
//	diff [-u | -U lines] [-q] [-s] [-r] [-N] [-a] [-b] [-B] [-i] [-w] [-L label]... old new
//
// Its status is 0 when there is no difference, 1 when there is one, and 2 when
// something went wrong.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/myers"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type differ struct {
	e                                                 *tool.Env
	unified, brief, same, recursive, absent, text     bool
	ignoreCase, ignoreAllSpace, ignoreSpace, noBlanks bool
	context                                           int
	labels                                            []string
	options                                           string // for the line that names a pair in a tree
}

func main() { tool.Main("diff", run) }

func run(e *tool.Env, args []string) {
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "uU:qsrNabBiwL:d", Min: 2, Max: 2, Usage: "[-u | -U lines] [-q] [-s] [-r] [-N] [-a] [-b] [-B] [-i] [-w] [-L label] old new",
		Long: "unified=u brief=q report-identical-files=s recursive=r new-file=N text=a ignore-space-change=b ignore-blank-lines=B " +
			"ignore-case=i ignore-all-space=w label=L minimal=d",
	}, args)
	if !ok {
		return
	}
	d := &differ{e: e, context: 3}
	for _, o := range options {
		d.options += " -" + string(rune(o.Letter)) + o.Value
		switch o.Letter {
		case 'u':
			d.unified = true
		case 'U':
			n, err := strconv.Atoi(o.Value)
			if err != nil || n < 0 {
				e.FailWith(2, fmt.Errorf("bad number of lines %q", o.Value))
				return
			}
			d.unified, d.context = true, n
		case 'q':
			d.brief = true
		case 's':
			d.same = true
		case 'r':
			d.recursive = true
		case 'N':
			d.absent = true
		case 'a':
			d.text = true
		case 'b':
			d.ignoreSpace = true
		case 'B':
			d.noBlanks = true
		case 'i':
			d.ignoreCase = true
		case 'w':
			d.ignoreAllSpace = true
		case 'L':
			d.labels = append(d.labels, o.Value)
		}
	}
	a, b := files[0], files[1]
	aDir, bDir := isDir(a), isDir(b)
	switch {
	case aDir && bDir:
		d.folders(a, b)
	case aDir:
		d.files(filepath.Join(a, filepath.Base(b)), b)
	case bDir:
		d.files(a, filepath.Join(b, filepath.Base(a)))
	default:
		d.files(a, b)
	}
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func (d *differ) differs() { d.e.Status = max(d.e.Status, 1) }

func (d *differ) fail(err error) { d.e.FailWith(2, err) }

// folders compares what has the same name, and tells what has not.
func (d *differ) folders(a, b string) {
	as, err1 := os.ReadDir(a)
	bs, err2 := os.ReadDir(b)
	// With -N a folder that is not there is empty.
	if d.absent && errors.Is(err1, fs.ErrNotExist) {
		err1 = nil
	}
	if d.absent && errors.Is(err2, fs.ErrNotExist) {
		err2 = nil
	}
	for _, err := range []error{err1, err2} {
		if err != nil {
			d.fail(err)
			return
		}
	}
	only := func(dir, name string) {
		d.differs()
		fmt.Fprintf(d.e.Out, "Only in %s: %s\n", dir, name)
	}
	for len(as) > 0 || len(bs) > 0 {
		var name string
		inA := len(as) > 0 && (len(bs) == 0 || as[0].Name() <= bs[0].Name())
		inB := len(bs) > 0 && (len(as) == 0 || bs[0].Name() <= as[0].Name())
		if inA {
			name, as = as[0].Name(), as[1:]
		}
		if inB {
			name, bs = bs[0].Name(), bs[1:]
		}
		x, y := filepath.Join(a, name), filepath.Join(b, name)
		xDir, yDir := isDir(x), isDir(y)
		switch {
		case !inA && !d.absent:
			only(b, name)
		case !inB && !d.absent:
			only(a, name)
		case xDir && yDir || (xDir || yDir) && inA != inB:
			if d.recursive {
				d.folders(x, y)
			} else if inA && inB {
				fmt.Fprintf(d.e.Out, "Common subdirectories: %s and %s\n", x, y)
			}
		case xDir != yDir:
			d.differs()
			fmt.Fprintf(d.e.Out, "File %s is a %s while file %s is a %s\n", x, kind(xDir), y, kind(yDir))
		default:
			title := fmt.Sprintf("diff%s %s %s\n", d.options, x, y)
			d.compare(x, y, title)
		}
	}
}

func kind(dir bool) string {
	if dir {
		return "directory"
	}
	return "regular file"
}

func (d *differ) files(a, b string) { d.compare(a, b, "") }

func (d *differ) read(name string) (text []byte, t time.Time, err error) {
	if name == "-" {
		text, err = io.ReadAll(d.e.In)
		return text, time.Now(), err
	}
	text, err = os.ReadFile(name)
	if d.absent && errors.Is(err, fs.ErrNotExist) {
		return nil, time.Unix(0, 0), nil
	}
	if info, err := os.Stat(name); err == nil {
		t = info.ModTime()
	}
	return text, t, err
}

// compare prints the differences of two files, below a title in a tree.
func (d *differ) compare(a, b, title string) {
	at, aTime, err1 := d.read(a)
	bt, bTime, err2 := d.read(b)
	for _, err := range []error{err1, err2} {
		if err != nil {
			d.fail(err)
		}
	}
	if err1 != nil || err2 != nil {
		return
	}
	var x, y []string
	var edits []myers.Edit
	binary := !d.text && (isBinary(at) || isBinary(bt))
	equal := bytes.Equal(at, bt)
	if !equal && !binary {
		x, y = split(at), split(bt)
		edits = d.edits(x, y)
		equal = len(edits) == 0
	}
	if equal {
		if d.same {
			fmt.Fprintf(d.e.Out, "Files %s and %s are identical\n", a, b)
		}
		return
	}
	d.differs()
	switch {
	case d.brief:
		fmt.Fprintf(d.e.Out, "Files %s and %s differ\n", a, b)
	case binary:
		fmt.Fprintf(d.e.Out, "Binary files %s and %s differ\n", a, b)
	case d.unified:
		fmt.Fprint(d.e.Out, title)
		d.head("---", 0, a, aTime)
		d.head("+++", 1, b, bTime)
		d.printUnified(x, y, edits)
	default:
		fmt.Fprint(d.e.Out, title)
		d.printNormal(x, y, edits)
	}
}

func (d *differ) head(mark string, which int, name string, t time.Time) {
	if which < len(d.labels) {
		fmt.Fprintf(d.e.Out, "%s %s\n", mark, d.labels[which])
		return
	}
	fmt.Fprintf(d.e.Out, "%s %s\t%s\n", mark, name, t.Format("2006-01-02 15:04:05.000000000 -0700"))
}

func isBinary(text []byte) bool {
	return bytes.IndexByte(text[:min(len(text), 8<<10)], 0) >= 0
}

// split keeps the ends of the lines: a last line without one is another line.
func split(text []byte) []string {
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// edits numbers the lines, the same ones alike, and compares the numbers.
func (d *differ) edits(x, y []string) []myers.Edit {
	known := map[string]int{}
	numbers := func(lines []string) []int {
		out := make([]int, len(lines))
		for i, line := range lines {
			line = d.seen(line)
			n, ok := known[line]
			if !ok {
				n = len(known)
				known[line] = n
			}
			out[i] = n
		}
		return out
	}
	edits := myers.Compare(numbers(x), numbers(y))
	if !d.noBlanks {
		return edits
	}
	var kept []myers.Edit
	for _, e := range edits {
		if strings.Trim(strings.Join(x[e.A1:e.A2], "")+strings.Join(y[e.B1:e.B2], ""), "\n") != "" {
			kept = append(kept, e)
		}
	}
	return kept
}

// seen is what of a line counts.
func (d *differ) seen(line string) string {
	if d.ignoreCase {
		line = strings.ToLower(line)
	}
	switch {
	case d.ignoreAllSpace:
		return strings.Join(strings.Fields(line), "")
	case d.ignoreSpace:
		indent := ""
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			indent = " "
		}
		return indent + strings.Join(strings.Fields(line), " ")
	}
	return line
}
