package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/hutchvm/hutch/agent/client"
)

// ErrDetached means that the detach keys were typed; the command goes on.
var ErrDetached = errors.New("detached")

// ErrNoTerminal means that Attach was called with a standard input that is no terminal.
var ErrNoTerminal = errors.New("standard input is not a terminal")

// DefaultDetachKeys leave an attached command when typed.
const DefaultDetachKeys = "ctrl-]"

// WithExecDetachKeys sets the keys that leave [Sandbox.Attach]: a list,
// separated by commas, of single characters and of ctrl-X, where X is a letter
// or one of @ [ \ ] ^ _. They must be typed right after each other.
func WithExecDetachKeys(keys string) ExecOption {
	return func(e *execConfig) { e.detachKeys = keys }
}

// Attach runs a command on a terminal in the guest and connects the caller's
// own, os.Stdin and os.Stdout, to it: keys, also ctrl-C, go to the command, and
// so do changes of the window's size. It returns when the command has ended, or
// with ErrDetached when the detach keys were typed; the command then goes on,
// and what it prints is discarded.
func (s *Sandbox) Attach(ctx context.Context, name string, args []string, opts ...ExecOption) (*ProcessState, error) {
	state, err := s.attach(ctx, name, args, opts)
	return state, s.opErr("attach", err)
}

// AttachShell is Attach of the sandbox's shell.
func (s *Sandbox) AttachShell(ctx context.Context, opts ...ExecOption) (*ProcessState, error) {
	return s.Attach(ctx, s.cfg.Shell, nil, opts...)
}

func (s *Sandbox) attach(ctx context.Context, name string, args []string, opts []ExecOption) (*ProcessState, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, ErrNoTerminal
	}
	rows, cols := terminalSize()
	opts = append([]ExecOption{WithExecTTYSize(os.Getenv("TERM"), rows, cols), WithExecDetachKeys(DefaultDetachKeys)}, opts...)
	e, err := resolveExec(name, args, append(opts, WithExecStdinPipe()))
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(e.detachKeys)
	if err != nil {
		return nil, err
	}
	p, err := s.start(ctx, e)
	if err != nil {
		return nil, err
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		p.release()
		return nil, err
	}
	defer term.Restore(fd, before)
	in, err := newTerminalInput(os.Stdin)
	if err != nil {
		p.release()
		return nil, err
	}
	defer watchSize(func() {
		if rows, cols := terminalSize(); rows > 0 {
			p.Resize(rows, cols)
		}
	})()

	detached := make(chan bool, 1)
	go func() {
		left, _ := copyKeys(p.Stdin(), in, keys)
		detached <- left
	}()
	type end struct {
		state ProcessState
		err   error
	}
	ended := make(chan end, 1)
	out := &switchWriter{w: os.Stdout}
	go func() {
		defer p.release()
		for {
			ev, err := p.Next()
			if err != nil {
				ended <- end{err: p.interrupted(err, &Output{})}
				return
			}
			switch ev.Kind {
			case client.EventStdout, client.EventStderr:
				out.Write(ev.Data)
			case client.EventExited:
				ended <- end{state: newProcessState(p.PID(), ev.Exit)}
				return
			}
		}
	}()
	for {
		select {
		case left := <-detached:
			if left {
				out.set(io.Discard)
				in.stop()
				return nil, ErrDetached
			}
			// The terminal is gone or the command takes no more keys; its end follows.
			detached = nil
		case e := <-ended:
			in.stop()
			if detached != nil {
				<-detached
			}
			return &e.state, e.err
		}
	}
}

// terminalSize is the size of the caller's terminal, 0 by 0 if it has none.
func terminalSize() (rows, cols uint16) {
	w, h, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || w <= 0 || h <= 0 || w > 0xffff || h > 0xffff {
		return 0, 0
	}
	return uint16(h), uint16(w)
}

// parseKeys turns "ctrl-p,ctrl-q" into the bytes that a terminal sends for it.
func parseKeys(keys string) ([]byte, error) {
	var seq []byte
	for _, k := range strings.Split(keys, ",") {
		c, isCtrl := strings.CutPrefix(strings.ToLower(k), "ctrl-")
		switch {
		case len(k) == 1:
			seq = append(seq, k[0])
		case isCtrl && len(c) == 1 && (c[0] >= 'a' && c[0] <= 'z' || strings.Contains(`@[\]^_`, c)):
			seq = append(seq, strings.ToUpper(c)[0]&0x1f)
		default:
			return nil, invalid("WithExecDetachKeys", "%q: want characters and ctrl-X, separated by commas", keys)
		}
	}
	return seq, nil
}

// copyKeys copies from r to w until the sequence keys comes by; it reports
// whether it did. A sequence that was begun and broken off is passed on.
func copyKeys(w io.Writer, r io.Reader, keys []byte) (bool, error) {
	buf := make([]byte, 4096)
	out := make([]byte, 0, len(buf)+len(keys))
	matched := 0
	for {
		n, err := r.Read(buf)
		out = out[:0]
		for _, c := range buf[:n] {
			if c != keys[matched] {
				out = append(out, keys[:matched]...)
				matched = 0
			}
			if c != keys[matched] {
				out = append(out, c)
				continue
			}
			if matched++; matched == len(keys) {
				_, werr := w.Write(out)
				return true, werr
			}
		}
		if len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				return false, err
			}
		}
		if err != nil {
			return false, fmt.Errorf("terminal: %w", err)
		}
	}
}

// switchWriter is a writer that can be exchanged while it is used.
type switchWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *switchWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func (s *switchWriter) set(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = w
}
