// Command tail prints the end of files.
//
//	tail [-n [+]lines | -c [+]bytes] [-f|-F] [-s seconds] [-q] [-v] [file...]
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

type tailer struct {
	e      *tool.Env
	count  int64
	bytes  bool
	from   bool // count from the beginning: the first to print
	titles bool
	shown  string // whose text came last
}

func main() { tool.Main("tail", run) }

func run(e *tool.Env, args []string) {
	// The oldest form: tail +3.
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '+' && strings.Trim(args[0][1:], "0123456789") == "" {
		args = append([]string{"-n", args[0]}, args[1:]...)
	}
	options, files, ok := e.Parse(&tool.Syntax{
		Letters: "n:c:fFqvs:", Long: "lines=n bytes=c follow=f quiet=q silent=q verbose=v sleep-interval=s retry=F", Number: 'n',
		Usage: "[-n [+]lines | -c [+]bytes] [-f|-F] [-s seconds] [-q] [-v] [file...]",
	}, args)
	if !ok {
		return
	}
	t := &tailer{e: e, count: 10, titles: len(files) > 1}
	follow, reopen, pause := false, false, 200*time.Millisecond
	for _, o := range options {
		switch o.Letter {
		case 'q', 'v':
			t.titles = o.Letter == 'v'
		case 'f':
			follow = true
		case 'F':
			follow, reopen = true, true
		case 's':
			seconds, err := strconv.ParseFloat(o.Value, 64)
			if err != nil || seconds < 0 {
				e.Failf("bad interval %q", o.Value)
				return
			}
			pause = time.Duration(seconds * float64(time.Second))
		default:
			text, from := strings.CutPrefix(o.Value, "+")
			n, err := tool.Size(strings.TrimPrefix(text, "-"))
			if err != nil {
				e.Fail(err)
				return
			}
			t.count, t.bytes, t.from = n, o.Letter == 'c', from
		}
	}
	var followed []*follower
	e.Each(files, func(name string, r io.Reader) error {
		t.title(name)
		err := t.print(r)
		if f, ok := r.(*os.File); ok && follow && err == nil && name != "-" {
			at, _ := f.Seek(0, io.SeekCurrent)
			info, _ := f.Stat()
			followed = append(followed, &follower{name: name, at: at, info: info})
		}
		return err
	})
	if reopen {
		for _, name := range files {
			if _, err := os.Stat(name); err != nil {
				followed = append(followed, &follower{name: name})
			}
		}
	}
	for len(followed) > 0 {
		if e.Out.Flush() != nil {
			return
		}
		time.Sleep(max(pause, time.Millisecond))
		for _, f := range followed {
			if err := t.more(f, reopen); err != nil {
				e.Fail(err)
				return
			}
		}
	}
}

func (t *tailer) title(name string) {
	if !t.titles || t.shown == name {
		return
	}
	if t.shown != "" {
		t.e.Out.WriteByte('\n')
	}
	t.shown = name
	if name == "-" {
		name = "standard input"
	}
	fmt.Fprintf(t.e.Out, "==> %s <==\n", name)
}

// print prints the end and leaves the file there.
func (t *tailer) print(r io.Reader) error {
	if t.from {
		return t.skip(r)
	}
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			if err := t.seek(f, info.Size()); err != nil {
				return err
			}
			_, err := io.Copy(t.e.Out, f)
			return err
		}
	}
	// Keep no more of a stream than may be wanted.
	var kept []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		if len(kept) > 1<<20 || err != nil {
			kept = append([]byte(nil), kept[t.cut(kept):]...)
		}
		if err == io.EOF {
			_, err = t.e.Out.Write(kept)
			return err
		}
		if err != nil {
			return err
		}
	}
}

// cut finds where the wanted end of b begins.
func (t *tailer) cut(b []byte) int {
	if t.bytes {
		return int(max(0, int64(len(b))-t.count))
	}
	if t.count == 0 {
		return len(b)
	}
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	for n := t.count; ; n-- {
		at := bytes.LastIndexByte(b[:end], '\n')
		if at < 0 {
			return 0
		}
		if n == 1 {
			return at + 1
		}
		end = at
	}
}

// seek goes to where the wanted end of a file begins, reading from the back.
func (t *tailer) seek(f *os.File, size int64) error {
	if t.bytes {
		_, err := f.Seek(max(0, size-t.count), io.SeekStart)
		return err
	}
	for span := int64(64 << 10); ; span *= 4 {
		start := max(0, size-span)
		b := make([]byte, size-start)
		n, err := f.ReadAt(b, start)
		if err != nil && err != io.EOF {
			return err
		}
		if cut := t.cut(b[:n]); cut > 0 || start == 0 {
			_, err := f.Seek(start+int64(cut), io.SeekStart)
			return err
		}
	}
}

// skip leaves out what is before the count.
func (t *tailer) skip(r io.Reader) error {
	if t.bytes {
		if _, err := io.CopyN(io.Discard, r, t.count-1); err != nil && err != io.EOF && t.count > 1 {
			return err
		}
		_, err := io.Copy(t.e.Out, r)
		return err
	}
	left := t.count - 1
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		part := buf[:n]
		for left > 0 && len(part) > 0 {
			at := bytes.IndexByte(part, '\n')
			if at < 0 {
				part = nil
				break
			}
			part = part[at+1:]
			left--
		}
		t.e.Out.Write(part)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// follower is a file that may grow.
type follower struct {
	name string
	at   int64
	info os.FileInfo
	file *os.File
}

// more prints what was added. A file that became shorter, or, with reopen, that
// is another one, starts anew.
func (t *tailer) more(f *follower, reopen bool) error {
	if f.file != nil && reopen {
		if now, err := os.Stat(f.name); err == nil && !os.SameFile(now, f.info) {
			f.file.Close()
			f.file, f.at = nil, 0
		}
	}
	if f.file == nil {
		file, err := os.Open(f.name)
		if err != nil {
			return nil // it may come back
		}
		f.file = file
		if f.info, err = file.Stat(); err != nil {
			return err
		}
	}
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		if info.Size() == f.at {
			return nil
		}
		if info.Size() < f.at {
			fmt.Fprintf(t.e.Err, "tail: %s: file truncated\n", f.name)
			f.at = 0
		}
		if _, err := f.file.Seek(f.at, io.SeekStart); err != nil {
			return err
		}
	}
	t.title(f.name)
	n, err := io.Copy(t.e.Out, f.file)
	f.at += n
	return err
}
