// Package gunzip is the body of gunzip and zcat.
package gunzip

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
)

// Main unpacks files; toStdout sends all to standard output. It returns the exit status.
func Main(args []string, toStdout bool) int {
	name, args := args[0], args[1:]
	keep, force := false, false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		for _, c := range args[0][1:] {
			switch c {
			case 'c':
				toStdout = true
			case 'k':
				keep = true
			case 'f':
				force = true
			case 'd':
			default:
				fmt.Fprintf(os.Stderr, "usage: %s [-cfk] [file...]\n", name)
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
		if err := unpack(file, toStdout || file == "-", keep, force); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %s: %v\n", name, file, err)
			status = 1
		}
	}
	return status
}

func unpack(file string, toStdout, keep, force bool) error {
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	if toStdout {
		_, err := io.Copy(os.Stdout, z)
		return err
	}
	to, ok := strings.CutSuffix(file, ".gz")
	if !ok {
		if to, ok = strings.CutSuffix(file, ".tgz"); !ok {
			return fmt.Errorf("unknown suffix")
		}
		to += ".tar"
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	out, err := os.OpenFile(to, flags, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, z)
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(to)
		return err
	}
	if keep {
		return nil
	}
	return os.Remove(file)
}
