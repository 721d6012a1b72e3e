package vmm

import (
	"bytes"
	"io"
	"sync/atomic"
)

// panicWatch passes the console on and remembers the line with which the
// kernel announces a panic, since a panicked guest then merely reboots. It
// keeps one line, so a guest cannot make it grow.
type panicWatch struct {
	out  io.Writer
	line [256]byte
	n    int
	seen atomic.Pointer[string]
}

var panicPrefix = []byte("Kernel panic - not syncing: ")

// Write is called from one goroutine, the console device's.
func (w *panicWatch) Write(p []byte) (int, error) {
	rest := p
	for len(rest) > 0 {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		w.n += copy(w.line[w.n:], part)
		if ended {
			w.endLine()
		}
		rest = after
	}
	if w.out == nil {
		return len(p), nil
	}
	return w.out.Write(p)
}

func (w *panicWatch) endLine() {
	line := w.line[:w.n]
	w.n = 0
	if i := bytes.Index(line, panicPrefix); i >= 0 && w.seen.Load() == nil {
		s := string(bytes.ToValidUTF8(bytes.TrimRight(line[i+len(panicPrefix):], "\r"), []byte("?")))
		w.seen.Store(&s)
	}
}
