// Command sed edits a stream of lines.
//
//	sed [-n] [-E|-r] [-i[suffix]] [-s] script | -e script | -f file... [file...]
//
// It has the commands { } = a b c D d g G h H i l n N p P q Q r s t T w x y and
// labels. Regular expressions have no back references.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

type options struct {
	quiet, extended, inPlace, separate bool
	suffix                             string
}

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "sed: %v\n", err)
	}
	os.Exit(status)
}

var errUsage = errors.New("usage: sed [-n] [-E] [-i[suffix]] script|-e script|-f file [file...]")

func run(args []string) (int, error) {
	var o options
	var scripts, files []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			files, args = append(files, args...), nil
		case arg == "--quiet" || arg == "--silent":
			o.quiet = true
		case arg == "--regexp-extended":
			o.extended = true
		case len(arg) > 1 && arg[0] == '-':
			var err error
			if args, scripts, err = o.letters(arg[1:], args, scripts); err != nil {
				return 2, err
			}
		default:
			files = append(files, arg)
		}
	}
	if scripts == nil {
		if len(files) == 0 {
			return 2, errUsage
		}
		scripts, files = files[:1], files[1:]
	}
	program, err := parse(strings.Join(scripts, "\n"), o.extended)
	if err != nil {
		return 2, err
	}
	if len(files) == 0 {
		files = []string{"-"}
	}
	return o.edit(program, files)
}

// letters reads one word of options.
func (o *options) letters(word string, args, scripts []string) (restArgs, allScripts []string, err error) {
	for i := 0; i < len(word); i++ {
		switch word[i] {
		case 'n':
			o.quiet = true
		case 'E', 'r':
			o.extended = true
		case 's':
			o.separate = true
		case 'i':
			o.inPlace, o.separate, o.suffix = true, true, word[i+1:]
			return args, scripts, nil
		case 'e', 'f':
			value := word[i+1:]
			if value == "" {
				if len(args) == 0 {
					return nil, nil, errUsage
				}
				value, args = args[0], args[1:]
			}
			if word[i] == 'f' {
				b, err := os.ReadFile(value)
				if err != nil {
					return nil, nil, err
				}
				value = strings.TrimSuffix(string(b), "\n")
			}
			return args, append(scripts, value), nil
		default:
			return nil, nil, errUsage
		}
	}
	return args, scripts, nil
}

// edit runs the program over the files.
func (o *options) edit(program *program, files []string) (int, error) {
	status := 0
	if !o.separate {
		out := bufio.NewWriter(os.Stdout)
		defer out.Flush()
		in := &input{files: files}
		m := &machine{program: program, in: in, out: out, quiet: o.quiet}
		code, err := m.run()
		if err == nil && in.failed {
			code = max(code, 2)
		}
		return code, err
	}
	for _, name := range files {
		code, quit, err := o.editOne(program, name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "sed: %v\n", err)
			code = 2
		}
		status = max(status, code)
		if quit {
			break
		}
	}
	return status, nil
}

// editOne runs the program over one file, which it replaces when editing in place.
func (o *options) editOne(program *program, name string) (status int, quit bool, err error) {
	target := os.Stdout
	if o.inPlace {
		info, err := os.Stat(name)
		if err != nil {
			return 2, false, err
		}
		if target, err = os.CreateTemp(filepath.Dir(name), ".sed-*"); err != nil {
			return 2, false, err
		}
		defer os.Remove(target.Name())
		defer target.Close()
		if err := target.Chmod(info.Mode()); err != nil {
			return 2, false, err
		}
	}
	out := bufio.NewWriter(target)
	in := &input{files: []string{name}}
	m := &machine{program: program, in: in, out: out, quiet: o.quiet}
	if status, err = m.run(); err != nil || in.failed {
		return 2, false, err
	}
	if m.quit && o.inPlace {
		in.copyRest(out)
	}
	if err := out.Flush(); err != nil || !o.inPlace {
		return status, m.quit, err
	}
	if o.suffix != "" {
		if err := os.Rename(name, name+o.suffix); err != nil {
			return 2, false, err
		}
	}
	return status, m.quit, os.Rename(target.Name(), name)
}

// input gives the lines of several files, and knows which is the last.
type input struct {
	files  []string
	r      *bufio.Reader
	f      *os.File
	ahead  *string
	failed bool
}

// next returns a line with its end, if it has one.
func (in *input) next() (string, bool) {
	if in.ahead != nil {
		line := *in.ahead
		in.ahead = nil
		return line, true
	}
	for {
		if in.r == nil {
			if len(in.files) == 0 {
				return "", false
			}
			name := in.files[0]
			in.files = in.files[1:]
			in.f = os.Stdin
			if name != "-" {
				f, err := os.Open(name)
				if err != nil {
					fmt.Fprintf(os.Stderr, "sed: %v\n", err)
					in.failed = true
					continue
				}
				in.f = f
			}
			in.r = bufio.NewReader(in.f)
		}
		line, err := in.r.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintf(os.Stderr, "sed: %v\n", err)
			in.failed = true
		}
		if err != nil {
			in.f.Close()
			in.r = nil
		}
		if line != "" {
			return line, true
		}
	}
}

func (in *input) last() bool {
	if in.ahead == nil {
		if line, ok := in.next(); ok {
			in.ahead = &line
		}
	}
	return in.ahead == nil
}

func (in *input) copyRest(w io.StringWriter) {
	for line, ok := in.next(); ok; line, ok = in.next() {
		w.WriteString(line)
	}
}
