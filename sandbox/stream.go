package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/hutchvm/hutch/agent/client"
)

// ExecEventKind is what an ExecEvent tells.
type ExecEventKind int

// The kinds of ExecEvent.
const (
	ExecEventStarted    ExecEventKind = iota + 1 // PID; the first event
	ExecEventStdout                              // Data
	ExecEventStderr                              // Data
	ExecEventStdinError                          // Err: the command takes no more stdin; it goes on
	ExecEventExited                              // State; the last event of a command that ended
	ExecEventFailed                              // Err: the command was killed or lost; the last event
)

// ExecEvent is something that a command did.
type ExecEvent struct {
	Kind  ExecEventKind
	PID   int
	Data  []byte // the receiver's own
	State *ProcessState
	Err   error
}

// ExecHandle is a running command whose output is taken event by event. A
// command whose events are not taken is held up in its writes; nothing is
// buffered beyond a few hundred KiB.
//
// Recv, Wait and Collect are for one goroutine at a time; the other methods may
// be called concurrently with them. Close must be called in the end.
type ExecHandle struct {
	p      *running
	pump   sync.Once
	events chan ExecEvent
	closed chan struct{}
	close  sync.Once
	stdin  sync.Once
	out    Output
}

// ExecStream starts a command and returns once it runs. When ctx ends, or the
// command's timeout, its process group is killed. See Exec for the errors.
func (s *Sandbox) ExecStream(ctx context.Context, name string, args []string, opts ...ExecOption) (*ExecHandle, error) {
	e, err := resolveExec(name, args, opts)
	if err != nil {
		return nil, s.opErr("exec", err)
	}
	p, err := s.start(ctx, e)
	if err != nil {
		return nil, s.opErr("exec", err)
	}
	return &ExecHandle{p: p, events: make(chan ExecEvent), closed: make(chan struct{})}, nil
}

// ShellStream is ExecStream of a script with the sandbox's shell.
func (s *Sandbox) ShellStream(ctx context.Context, script string, opts ...ExecOption) (*ExecHandle, error) {
	return s.ExecStream(ctx, s.cfg.Shell, []string{"-c", script}, opts...)
}

// PID is the command's process ID in the guest.
func (h *ExecHandle) PID() int { return h.p.PID() }

// Recv waits for the next event. After the last one it returns io.EOF. When
// ctx ends it returns its cause; the command goes on and no event is lost.
func (h *ExecHandle) Recv(ctx context.Context) (ExecEvent, error) {
	h.pump.Do(func() { go h.run() })
	select {
	case ev, ok := <-h.events:
		if !ok {
			return ExecEvent{}, io.EOF
		}
		return ev, nil
	case <-ctx.Done():
		return ExecEvent{}, context.Cause(ctx)
	case <-h.closed:
		return ExecEvent{}, h.p.s.opErr("recv", ErrClosed)
	}
}

// run reads the command's events for Recv. It ends with the command or Close.
func (h *ExecHandle) run() {
	defer close(h.events)
	send := func(ev ExecEvent) bool {
		select {
		case h.events <- ev:
			return true
		case <-h.closed:
			return false
		}
	}
	if !send(ExecEvent{Kind: ExecEventStarted, PID: h.PID()}) {
		return
	}
	for {
		ev, err := h.p.Next()
		if err != nil {
			send(ExecEvent{Kind: ExecEventFailed, Err: h.p.s.opErr("exec", h.p.interrupted(err, &Output{}))})
			return
		}
		switch ev.Kind {
		case client.EventStdout:
			send(ExecEvent{Kind: ExecEventStdout, Data: bytes.Clone(ev.Data)})
		case client.EventStderr:
			send(ExecEvent{Kind: ExecEventStderr, Data: bytes.Clone(ev.Data)})
		case client.EventStdinError:
			send(ExecEvent{Kind: ExecEventStdinError, Err: syscall.Errno(ev.Errno)})
		case client.EventExited:
			state := newProcessState(h.PID(), ev.Exit)
			send(ExecEvent{Kind: ExecEventExited, State: &state})
			return
		}
	}
}

// Wait discards the command's output and waits for its end.
func (h *ExecHandle) Wait(ctx context.Context) (*ProcessState, error) {
	out, err := h.gather(ctx, func(ExecEvent) error { return nil })
	if err != nil {
		return nil, err
	}
	return &out.state, nil
}

// Collect takes what the command still prints and waits for its end. It keeps
// as much as [WithExecOutputLimit] says and kills the command beyond that.
// When ctx ends, the command goes on and a later Collect returns all.
func (h *ExecHandle) Collect(ctx context.Context) (*Output, error) {
	return h.gather(ctx, func(ev ExecEvent) error {
		into := &h.out.stdout
		if ev.Kind == ExecEventStderr {
			into = &h.out.stderr
		}
		if len(*into)+len(ev.Data) > h.p.limit {
			return errors.Join(&InterruptedError{Output: &h.out, Err: ErrOutputLimit}, h.Kill())
		}
		*into = append(*into, ev.Data...)
		return nil
	})
}

func (h *ExecHandle) gather(ctx context.Context, keep func(ExecEvent) error) (*Output, error) {
	for {
		ev, err := h.Recv(ctx)
		if err != nil {
			return nil, err
		}
		switch ev.Kind {
		case ExecEventStdout, ExecEventStderr:
			if err := keep(ev); err != nil {
				return nil, h.p.s.opErr("exec", err)
			}
		case ExecEventExited:
			h.out.state = *ev.State
			return &h.out, nil
		case ExecEventFailed:
			var ie *InterruptedError
			if errors.As(ev.Err, &ie) {
				ie.Output = &h.out
			}
			return nil, ev.Err
		}
	}
}

// TakeStdin returns the command's stdin, once; nil if it was taken before or
// the command was not started with [WithExecStdinPipe]. Closing it is the end
// of file. A Write waits while the command does not read; after its end Write
// fails with EPIPE.
func (h *ExecHandle) TakeStdin() io.WriteCloser {
	var w io.WriteCloser
	h.stdin.Do(func() {
		if h.p.pipe {
			w = h.p.Stdin()
		}
	})
	return w
}

// Signal sends a signal to the command's process group.
func (h *ExecHandle) Signal(sig syscall.Signal) error { return h.p.Process.Signal(int(sig)) }

// Kill sends SIGKILL to the command's process group.
func (h *ExecHandle) Kill() error { return h.p.Kill() }

// Resize changes the size of the command's terminal.
func (h *ExecHandle) Resize(rows, cols uint16) error { return h.p.Resize(rows, cols) }

// Close gives the command up: if it still runs, its process group is killed.
// It does not wait for that. It is idempotent.
func (h *ExecHandle) Close() error {
	h.close.Do(func() {
		close(h.closed)
		h.p.release()
	})
	return nil
}
