// Command tar packs and unpacks tar archives.
//
//	tar c|x|t[vzfCp] [-f archive] [-C folder] [--exclude=pattern] [--strip-components=n] [file...]
//
// Unpacking never leaves the target folder, whatever the archive says.
package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
)

type options struct {
	mode          byte // c, x or t
	archive, dir  string
	gzip, verbose bool
	noOwner       bool
	exclude       []string
	strip         int
	files         []string
}

var errUsage = errors.New("usage: tar c|x|t[vzfCp] [-f archive] [-C folder] [--exclude=pattern] [--strip-components=n] [file...]")

func main() {
	o, err := parse(os.Args[1:])
	if err == nil {
		err = o.run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "tar: %v\n", err)
		os.Exit(2)
	}
}

func parse(args []string) (*options, error) {
	o := &options{archive: "-", dir: "."}
	long := map[string]string{"--create": "c", "--extract": "x", "--get": "x", "--list": "t", "--verbose": "v", "--gzip": "z", "--file": "f", "--directory": "C", "--no-same-owner": "o", "--numeric-owner": "n", "--preserve-permissions": "p"}
	for first := true; len(args) > 0; first = false {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			o.files = append(o.files, args...)
			break
		}
		letters := strings.TrimPrefix(arg, "-")
		if name, value, hasValue := strings.Cut(arg, "="); strings.HasPrefix(arg, "--") {
			if !hasValue && (name == "--exclude" || name == "--strip-components") && len(args) > 0 {
				value, args = args[0], args[1:]
			}
			switch name {
			case "--exclude":
				o.exclude = append(o.exclude, value)
				continue
			case "--strip-components":
				n, err := strconv.Atoi(value)
				if err != nil || n < 0 {
					return nil, errUsage
				}
				o.strip = n
				continue
			}
			if letters = long[name]; letters == "" {
				return nil, errUsage
			}
			if hasValue {
				args = append([]string{value}, args...)
			}
		} else if !first && !(len(arg) > 1 && arg[0] == '-') {
			o.files = append(o.files, arg)
			continue
		}
		for i := 0; i < len(letters); i++ {
			switch c := letters[i]; c {
			case 'c', 'x', 't':
				o.mode = c
			case 'v':
				o.verbose = true
			case 'z':
				o.gzip = true
			case 'o':
				o.noOwner = true
			case 'p', 'a', 'n':
			case 'f', 'C':
				value := letters[i+1:]
				// In "-xzf" the value is the next word; in "-farchive" it follows.
				if value == "" || first && arg[0] != '-' {
					if len(args) == 0 {
						return nil, errUsage
					}
					value, args = args[0], args[1:]
				} else {
					i = len(letters)
				}
				if c == 'f' {
					o.archive = value
				} else {
					o.dir = value
				}
			default:
				return nil, errUsage
			}
		}
	}
	if o.mode == 0 {
		return nil, errUsage
	}
	return o, nil
}

func (o *options) run() (err error) {
	if o.mode == 'c' {
		out := os.Stdout
		if o.archive != "-" {
			if out, err = os.Create(o.archive); err != nil {
				return err
			}
		}
		var w io.Writer = out
		var z *gzip.Writer
		if o.gzip {
			z = gzip.NewWriter(out)
			w = z
		}
		err = o.create(w)
		if z != nil && err == nil {
			err = z.Close()
		}
		if e := out.Close(); err == nil {
			err = e
		}
		return err
	}
	in := os.Stdin
	if o.archive != "-" {
		if in, err = os.Open(o.archive); err != nil {
			return err
		}
		defer in.Close()
	}
	// Compression is recognized, as everybody expects by now.
	buf := bufio.NewReaderSize(in, 1<<16)
	var r io.Reader = buf
	if magic, _ := buf.Peek(2); string(magic) == "\x1f\x8b" {
		if r, err = gzip.NewReader(buf); err != nil {
			return err
		}
	}
	return o.read(r)
}

// wanted tells whether a name is among those asked for, or below one.
func (o *options) wanted(name string) bool {
	name = clean(name)
	for _, p := range o.exclude {
		for at := name; at != "." && at != "/"; at = path.Dir(at) {
			if ok, _ := path.Match(p, at); ok {
				return false
			}
			if ok, _ := path.Match(p, path.Base(at)); ok {
				return false
			}
		}
	}
	if o.mode == 'c' || len(o.files) == 0 {
		return true
	}
	for _, f := range o.files {
		if f = clean(f); name == f || strings.HasPrefix(name, f+"/") {
			return true
		}
	}
	return false
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
