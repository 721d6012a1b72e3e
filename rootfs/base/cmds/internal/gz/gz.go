// Package gz is the body of gzip, gunzip and zcat.
package gz

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
)

// Options are what the three names differ in.
type Options struct{ Unpack, Stdout bool }

type work struct {
	Options
	keep, force bool
	level       int
}

// Main packs or unpacks files. It returns the exit status.
func Main(args []string, o Options) int {
	name, args := args[0], args[1:]
	w := work{Options: o, level: gzip.DefaultCompression}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		for _, c := range args[0][1:] {
			switch {
			case c == 'c':
				w.Stdout = true
			case c == 'k':
				w.keep = true
			case c == 'f':
				w.force = true
			case c == 'd':
				w.Unpack = true
			case c == 'n' || c == 'q':
			case c >= '1' && c <= '9':
				w.level = int(c - '0')
			default:
				fmt.Fprintf(os.Stderr, "usage: %s [-cdfk] [-1..-9] [file...]\n", name)
				return 2
			}
		}
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"-"}
	}
	status := 0
	for _, file := range args {
		if err := w.file(file); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %s: %v\n", name, file, err)
			status = 1
		}
	}
	return status
}

func (w work) file(file string) error {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if w.Stdout || file == "-" {
		return w.convert(os.Stdout, in)
	}
	to, err := w.target(file)
	if err != nil {
		return err
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if w.force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	out, err := os.OpenFile(to, flags, info.Mode().Perm())
	if err != nil {
		return err
	}
	err = w.convert(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(to)
		return err
	}
	if w.keep {
		return nil
	}
	return os.Remove(file)
}

func (w work) target(file string) (string, error) {
	if !w.Unpack {
		return file + ".gz", nil
	}
	if to, ok := strings.CutSuffix(file, ".gz"); ok {
		return to, nil
	}
	if to, ok := strings.CutSuffix(file, ".tgz"); ok {
		return to + ".tar", nil
	}
	return "", fmt.Errorf("unknown suffix")
}

func (w work) convert(out io.Writer, in io.Reader) error {
	if w.Unpack {
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, z)
		return err
	}
	z, err := gzip.NewWriterLevel(out, w.level)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	return z.Close()
}
