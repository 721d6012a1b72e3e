// Command stty shows and changes the settings of a terminal.
//
//	stty [-a|-g] [-F device] [setting...]
//
// Settings are size, speed, rows N, cols N, min N, time N, a rate, the names of
// flags with or without -, those of control characters with a character, sane,
// raw, cooked, cbreak, and what -g printed.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("stty", run) }

func run(e *tool.Env, args []string) {
	fd, all, saved := 0, false, false
	var settings []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "-a" || arg == "--all":
			all = true
		case arg == "-g" || arg == "--save":
			saved = true
		case arg == "-F" && len(args) > 0:
			f, err := os.OpenFile(args[0], os.O_RDWR|unix.O_NONBLOCK, 0)
			if err != nil {
				e.Fail(err)
				return
			}
			defer f.Close()
			fd, args = int(f.Fd()), args[1:]
		default:
			settings = append(settings, arg)
		}
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		e.Failf("standard input: %w", err)
		return
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		size = &unix.Winsize{}
	}
	switch {
	case saved:
		fmt.Fprintln(e.Out, save(t))
		return
	case all || len(settings) == 0:
		show(e, t, size, all)
		return
	}
	before := *t
	resize := false
	for len(settings) > 0 {
		word := settings[0]
		settings = settings[1:]
		switch word {
		case "size":
			fmt.Fprintf(e.Out, "%d %d\n", size.Row, size.Col)
			continue
		case "speed":
			fmt.Fprintln(e.Out, rateOf(t))
			continue
		}
		if ok, err := flag(t, word); ok || err != nil {
			if err != nil {
				e.Fail(err)
				return
			}
			continue
		}
		if len(settings) == 0 {
			e.Failf("unknown setting, or one without its value: %s", word)
			return
		}
		value := settings[0]
		settings = settings[1:]
		var err error
		switch word {
		case "rows":
			size.Row, err = lines(value)
			resize = true
		case "cols", "columns":
			size.Col, err = lines(value)
			resize = true
		default:
			err = character(t, word, value)
		}
		if err != nil {
			e.Fail(err)
			return
		}
	}
	if *t != before {
		if err := unix.IoctlSetTermios(fd, unix.TCSETSW, t); err != nil {
			e.Fail(err)
		}
	}
	if resize {
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size); err != nil {
			e.Fail(err)
		}
	}
}

func lines(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 0, 16)
	return uint16(n), err
}

// save writes everything in hexadecimal, with colons between.
func save(t *unix.Termios) string {
	parts := []string{}
	for _, v := range []uint32{t.Iflag, t.Oflag, t.Cflag, t.Lflag} {
		parts = append(parts, strconv.FormatUint(uint64(v), 16))
	}
	for _, c := range t.Cc {
		parts = append(parts, strconv.FormatUint(uint64(c), 16))
	}
	return strings.Join(parts, ":")
}

var errSaved = errors.New("not what -g prints")

func restore(t *unix.Termios, text string) error {
	parts := strings.Split(text, ":")
	if len(parts) != 4+len(t.Cc) {
		return errSaved
	}
	for i, part := range parts {
		bits := 32
		if i >= 4 {
			bits = 8
		}
		v, err := strconv.ParseUint(part, 16, bits)
		if err != nil {
			return errSaved
		}
		if i < 4 {
			*[]*uint32{&t.Iflag, &t.Oflag, &t.Cflag, &t.Lflag}[i] = uint32(v)
		} else {
			t.Cc[i-4] = byte(v)
		}
	}
	return nil
}

func show(e *tool.Env, t *unix.Termios, size *unix.Winsize, all bool) {
	fmt.Fprintf(e.Out, "speed %d baud; rows %d; columns %d; line = %d;\n", rateOf(t), size.Row, size.Col, t.Line)
	if !all {
		// Only what is not as usual.
		usual := *t
		sane(&usual)
		for _, c := range characters {
			if t.Cc[c.index] != usual.Cc[c.index] {
				fmt.Fprintf(e.Out, "%s = %s; ", c.name, caret(t.Cc[c.index]))
			}
		}
		for _, f := range flags {
			if got := state(t, f); got != state(&usual, f) {
				fmt.Fprint(e.Out, got, " ")
			}
		}
		fmt.Fprintln(e.Out)
		return
	}
	for _, c := range characters {
		fmt.Fprintf(e.Out, "%s = %s; ", c.name, caret(t.Cc[c.index]))
	}
	fmt.Fprintf(e.Out, "min = %d; time = %d;\n", t.Cc[unix.VMIN], t.Cc[unix.VTIME])
	group := flags[0].group
	for i, f := range flags {
		if f.group != group {
			fmt.Fprintln(e.Out)
			group = f.group
		} else if i > 0 {
			fmt.Fprint(e.Out, " ")
		}
		fmt.Fprint(e.Out, state(t, f))
	}
	fmt.Fprintln(e.Out)
}
