package kvmhost

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// terminalOf gives the file behind a stream if that is a terminal.
func terminalOf(stream any) *os.File {
	f, ok := stream.(*os.File)
	if ok && f != nil && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// connect decides how the command's streams are made inside. A terminal is used
// inside where there is one outside, provided that its output can be shown: a
// command with terminal input and all output redirected is served better by
// the outer terminal's own echo and line editing.
func (c *Config) connect(w *wire.Command) error {
	in, out, errs := terminalOf(c.Stdin), terminalOf(c.Stdout), terminalOf(c.Stderr)
	tty := c.TTY || in != nil && (out != nil || errs != nil)
	kind := func(present bool, t *os.File) wire.Stream {
		switch {
		case tty && (t != nil || c.TTY):
			return wire.Terminal
		case present:
			return wire.Pipe
		}
		return wire.Null
	}
	w.Stdin = kind(c.Stdin != nil, in)
	w.Stdout = kind(c.Stdout != nil, out)
	w.Stderr = kind(c.Stderr != nil, errs)
	if w.Stdout == wire.Pipe && w.Stderr == wire.Pipe && sameFile(c.Stdout, c.Stderr) {
		w.Stderr = wire.AsStdout
	}
	w.Window = wire.Window{Rows: 24, Cols: 80}
	for _, f := range []*os.File{in, out, errs} {
		if size, ok := windowOf(f); ok {
			w.Window = size
			break
		}
	}
	return nil
}

func windowOf(f *os.File) (wire.Window, bool) {
	if f == nil {
		return wire.Window{}, false
	}
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || cols <= 0 || rows <= 0 {
		return wire.Window{}, false
	}
	return wire.Window{Rows: uint16(rows), Cols: uint16(cols)}, true
}

// sameFile says whether two writers lead to one open file.
func sameFile(a, b io.Writer) bool {
	fa, ok := a.(*os.File)
	if !ok {
		return false
	}
	fb, ok := b.(*os.File)
	if !ok {
		return false
	}
	if fa == fb {
		return true
	}
	var sa, sb unix.Stat_t
	if unix.Fstat(int(fa.Fd()), &sa) != nil || unix.Fstat(int(fb.Fd()), &sb) != nil {
		return false
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino && sa.Rdev == sb.Rdev
}

// rawTerminal makes the outer terminal pass every key on, if the command's
// input is one, and returns what puts it back.
func (c *Config) rawTerminal(w *wire.Command) (restore func()) {
	f := terminalOf(c.Stdin)
	if f == nil || w.Stdin != wire.Terminal {
		return func() {}
	}
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return func() {}
	}
	return func() { term.Restore(int(f.Fd()), state) }
}
