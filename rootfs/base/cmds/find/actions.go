package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
)

func (w *walker) print(end string) node {
	return func(f *file) bool {
		w.e.Out.WriteString(f.path)
		w.e.Out.WriteString(end)
		return true
	}
}

func (w *walker) remove(f *file) bool {
	if f.path == "." {
		return true
	}
	remove := unix.Unlink
	if f.isDir() {
		remove = unix.Rmdir
	}
	if err := remove(f.path); err != nil {
		w.e.Fail(&fs.PathError{Op: "remove", Path: f.path, Err: err})
		return false
	}
	return true
}

// printf knows escapes and the directives of value.
func (w *walker) printf(format string) node {
	return func(f *file) bool {
		for i := 0; i < len(format); i++ {
			c := format[i]
			if i+1 == len(format) || c != '%' && c != '\\' {
				w.e.Out.WriteByte(c)
				continue
			}
			i++
			if c == '\\' {
				if at := strings.IndexByte("nt0", format[i]); at >= 0 {
					w.e.Out.WriteByte("\n\t\x00"[at])
				} else {
					w.e.Out.WriteByte(format[i])
				}
				continue
			}
			if strings.IndexByte("TAC", format[i]) >= 0 && i+1 < len(format) {
				i++
				w.e.Out.WriteString(w.stamp(f, format[i-1], format[i]))
				continue
			}
			w.e.Out.WriteString(w.value(f, format[i]))
		}
		return true
	}
}

func (w *walker) value(f *file, letter byte) string {
	switch letter {
	case 'p':
		return f.path
	case 'f':
		return f.name()
	case 'h':
		return filepath.Dir(f.path)
	case 'P':
		return strings.TrimPrefix(strings.TrimPrefix(f.path, f.start), "/")
	case 'H':
		return f.start
	case 's':
		return strconv.FormatInt(f.st.Size, 10)
	case 'k':
		return strconv.FormatInt((f.st.Blocks+1)/2, 10)
	case 'b':
		return strconv.FormatInt(f.st.Blocks, 10)
	case 'm':
		return strconv.FormatUint(uint64(f.st.Mode&0o7777), 8)
	case 'M':
		return mode.Letters(f.st.Mode)
	case 'y':
		return strings.Replace(mode.Letters(f.st.Mode)[:1], "-", "f", 1)
	case 'd':
		return strconv.Itoa(f.depth)
	case 'i':
		return strconv.FormatUint(f.st.Ino, 10)
	case 'n':
		return strconv.FormatUint(uint64(f.st.Nlink), 10)
	case 'U':
		return strconv.FormatUint(uint64(f.st.Uid), 10)
	case 'G':
		return strconv.FormatUint(uint64(f.st.Gid), 10)
	case 'u':
		id := strconv.FormatUint(uint64(f.st.Uid), 10)
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return id
	case 'g':
		id := strconv.FormatUint(uint64(f.st.Gid), 10)
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return id
	case 'l':
		target, _ := os.Readlink(f.path)
		return target
	case 't':
		return w.stamp(f, 'T', '+')
	case '%':
		return "%"
	}
	return "%" + string(rune(letter))
}

func (w *walker) stamp(f *file, which, how byte) string {
	ts := map[byte]unix.Timespec{'T': f.st.Mtim, 'A': f.st.Atim, 'C': f.st.Ctim}[which]
	t := time.Unix(ts.Unix())
	switch how {
	case '@':
		return fmt.Sprintf("%d.%09d0", ts.Sec, ts.Nsec)
	case 'Y':
		return t.Format("2006")
	case 'm':
		return t.Format("01")
	case 'd':
		return t.Format("02")
	case 'H':
		return t.Format("15")
	case 'M':
		return t.Format("04")
	case 'S':
		return t.Format("05")
	case 'T':
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// maxBatch is the most bytes of names that one command gets, well below what
// Linux allows.
const maxBatch = 128 << 10

// batch collects files for a command that ends in {} +.
type batch struct {
	command, files []string
	bytes          int
}

func (b *batch) flush(w *walker) {
	if len(b.files) == 0 {
		return
	}
	args := append(append([]string{}, b.command...), b.files...)
	b.files, b.bytes = nil, 0
	status, err := w.e.Run(args, w.e.In)
	if err != nil {
		w.e.Fail(err)
	} else if status != 0 {
		w.e.Status = max(w.e.Status, 1)
	}
}

// exec parses what follows -exec.
func (p *parser) exec(word string) (node, error) {
	p.action = true
	w := p.w
	for i, arg := range p.args {
		command := p.args[:i]
		switch {
		case arg == ";":
			if i == 0 {
				return nil, errors.New(word + " needs a command")
			}
			p.args = p.args[i+1:]
			return func(f *file) bool { return w.command(word, command, f) }, nil
		case arg == "+" && i > 1 && p.args[i-1] == "{}" && word == "-exec":
			b := &batch{command: command[:i-1]}
			w.batches = append(w.batches, b)
			p.args = p.args[i+1:]
			return func(f *file) bool {
				if b.bytes += len(f.path) + 1; b.bytes > maxBatch {
					b.flush(w)
					b.bytes = len(f.path) + 1
				}
				b.files = append(b.files, f.path)
				return true
			}, nil
		}
	}
	return nil, errors.New(word + " needs a ; or {} + at its end")
}

// command runs a command for one file and tells whether it succeeded.
func (w *walker) command(word string, command []string, f *file) bool {
	name := f.path
	if word == "-execdir" {
		name = "./" + f.name()
	}
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = strings.ReplaceAll(a, "{}", name)
	}
	if word == "-execdir" {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = filepath.Dir(f.path)
		w.e.Out.Flush()
		cmd.Stdin, cmd.Stdout, cmd.Stderr = w.e.In, os.Stdout, w.e.Err
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			w.e.Fail(err)
		}
		return cmd.ProcessState != nil && cmd.ProcessState.Success()
	}
	if word == "-ok" {
		w.e.Out.Flush()
		fmt.Fprintf(w.e.Err, "< %s > ? ", strings.Join(args, " "))
		var answer string
		if fmt.Fscanln(w.e.In, &answer); !strings.HasPrefix(strings.ToLower(answer), "y") {
			return false
		}
	}
	status, err := w.e.Run(args, w.e.In)
	if err != nil {
		w.e.Fail(err)
	}
	return err == nil && status == 0
}
