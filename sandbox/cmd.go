package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/hutchvm/hutch/agent/client"
)

// Cmd is a command to be run in a sandbox, with the fields and methods of
// os/exec.Cmd. It cannot be used again after Run, Output or Start.
type Cmd struct {
	// Path is the command; without a slash it is looked up in the guest's PATH.
	Path string
	// Args are the command's arguments, Path as Args[0] included.
	Args []string
	// Env adds "KEY=value" variables to those of the sandbox; of several for
	// one key the last counts.
	Env []string
	// Dir is the working directory; the sandbox's if empty.
	Dir string
	// Stdin is what the command reads; nil is /dev/null.
	Stdin io.Reader
	// Stdout and Stderr get what the command prints; nil discards it. If they
	// are the same writer, at most one goroutine at a time calls Write.
	Stdout, Stderr io.Writer
	// Options are further options of the command, such as [WithExecUser] or
	// [WithExecTTY].
	Options []ExecOption

	// Process is the running command, once started.
	Process *Process
	// ProcessState tells how it ended; set by Wait and Run.
	ProcessState *ProcessState

	s      *Sandbox
	ctx    context.Context
	pipes  []io.Closer // the guest's ends of StdoutPipe and the like
	stdin  *stdinPipe
	ended  chan cmdEnd
	waited bool // Wait was called
}

// cmdEnd is how a command and the copying of its output ended.
type cmdEnd struct {
	state *ProcessState // nil if it did not end by itself
	err   error
}

// Process is a started Cmd.
type Process struct {
	// Pid is the process ID in the guest.
	Pid int
	p   *running
}

// Signal sends a signal to the command's process group.
func (p *Process) Signal(sig os.Signal) error {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return errors.New("sandbox: unknown kind of signal")
	}
	return p.p.Process.Signal(int(n))
}

// Kill sends SIGKILL to the command's process group.
func (p *Process) Kill() error { return p.p.Kill() }

// Resize changes the size of the command's terminal.
func (p *Process) Resize(rows, cols uint16) error { return p.p.Resize(rows, cols) }

// ExitError says that a command ended with an exit code other than 0 or by a
// signal.
type ExitError struct {
	*ProcessState
	// Stderr is the beginning and the end of the standard error of a command
	// run by [Cmd.Output] that had none of its own.
	Stderr []byte
}

func (e *ExitError) Error() string { return e.ProcessState.String() }

// Command prepares a command. When ctx ends, its process group is killed.
func (s *Sandbox) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Path: name, Args: append([]string{name}, args...), s: s, ctx: ctx}
}

// String is the command for people to read.
func (c *Cmd) String() string { return strings.Join(append([]string{c.Path}, c.argv()...), " ") }

func (c *Cmd) argv() []string {
	if len(c.Args) == 0 {
		return nil
	}
	return c.Args[1:]
}

// Start starts the command without waiting for its end. After it succeeded,
// Wait must be called.
func (c *Cmd) Start() error {
	if c.ended != nil {
		return c.s.opErr("exec", errors.New("command was started already"))
	}
	opts := append([]ExecOption{}, c.Options...)
	if c.Dir != "" {
		opts = append(opts, WithExecCwd(c.Dir))
	}
	switch {
	case c.stdin != nil:
		opts = append(opts, WithExecStdinPipe())
	case c.Stdin != nil:
		opts = append(opts, WithExecStdin(c.Stdin))
	}
	e, err := resolveExec(c.Path, c.argv(), opts)
	if err == nil {
		err = c.addEnv(e)
	}
	if err != nil {
		return c.abandon(err)
	}
	p, err := c.s.start(c.ctx, e)
	if err != nil {
		return c.abandon(err)
	}
	c.Process = &Process{Pid: p.PID(), p: p}
	if c.stdin != nil {
		c.stdin.start(p.Stdin())
	}
	c.ended = make(chan cmdEnd, 1)
	go func() { c.ended <- c.copyOutput(p) }()
	return nil
}

// addEnv checks c.Env, which unlike a map has an order, and adds it.
func (c *Cmd) addEnv(e *execConfig) error {
	for _, kv := range c.Env {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return invalid("Env", "%q has no '='", k)
		}
		if err := checkEnv("Env", map[string]string{k: v}); err != nil {
			return err
		}
	}
	e.request.Env = append(e.request.Env, c.Env...)
	return nil
}

func (c *Cmd) abandon(err error) error {
	c.closePipes()
	if c.stdin != nil {
		c.stdin.fail(err)
	}
	return c.s.opErr("exec", err)
}

func (c *Cmd) closePipes() {
	for _, p := range c.pipes {
		p.Close()
	}
}

// copyOutput hands the output on until the command ends. A writer that fails
// gets no more; the command goes on.
func (c *Cmd) copyOutput(p *running) cmdEnd {
	defer c.closePipes()
	var failed [2]error
	write := func(i int, w io.Writer, data []byte) {
		if w != nil && failed[i] == nil {
			_, failed[i] = w.Write(data)
		}
	}
	for {
		ev, err := p.Next()
		if err != nil {
			return cmdEnd{err: p.interrupted(err, &Output{})}
		}
		switch ev.Kind {
		case client.EventStdout:
			write(0, c.Stdout, ev.Data)
		case client.EventStderr:
			write(1, c.Stderr, ev.Data)
		case client.EventExited:
			state := newProcessState(p.PID(), ev.Exit)
			return cmdEnd{state: &state, err: errors.Join(failed[0], failed[1])}
		}
	}
}

// Wait waits for the command's end and for all of its output. It returns an
// *[ExitError] for an exit code other than 0, and the error of a Stdout or
// Stderr writer.
func (c *Cmd) Wait() error {
	if c.ended == nil {
		return c.s.opErr("wait", errors.New("command was not started"))
	}
	if c.waited {
		return c.s.opErr("wait", errors.New("Wait was called already"))
	}
	c.waited = true
	end := <-c.ended
	c.ProcessState = end.state
	err := end.err
	p := c.Process.p
	p.release()
	if err == nil && p.stdin != nil {
		// A reader that failed is the caller's business; one that is still
		// blocked, or met a command that did not want it, is nobody's.
		select {
		case serr := <-p.stdin:
			err = stdinReaderError(serr)
		default:
		}
	}
	if err == nil && !c.ProcessState.Success() {
		return &ExitError{ProcessState: c.ProcessState}
	}
	return c.s.opErr("exec", err)
}

// stdinReaderError keeps only errors of the caller's own reader.
func stdinReaderError(err error) error {
	var ce *client.Error
	if err == nil || errors.As(err, &ce) {
		return nil
	}
	return fmt.Errorf("stdin: %w", err)
}

// Run starts the command and waits for its end; see Wait.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns its standard output, up to 64 MiB. If
// Stderr is nil, an *ExitError holds the standard error's beginning and end.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, c.s.opErr("exec", errors.New("Stdout is set already"))
	}
	out := limitedBuffer{limit: defaultOutputLimit}
	c.Stdout = &out
	var tail *edges
	if c.Stderr == nil {
		tail = &edges{}
		c.Stderr = tail
	}
	err := c.Run()
	var ee *ExitError
	if tail != nil && errors.As(err, &ee) {
		ee.Stderr = tail.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns its standard output and error,
// together up to 64 MiB.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, c.s.opErr("exec", errors.New("Stdout or Stderr is set already"))
	}
	out := limitedBuffer{limit: defaultOutputLimit}
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// limitedBuffer refuses to grow beyond limit, so that a guest cannot fill the
// host's memory.
type limitedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, ErrOutputLimit
	}
	return b.Buffer.Write(p)
}
