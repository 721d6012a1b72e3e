package sandbox

import (
	"context"
	"errors"
	"io"

	"github.com/hutchvm/hutch/agent/client"
)

// defaultOutputLimit is how much of each of stdout and stderr Exec and Collect
// keep unless told otherwise: a guest must not fill the host's memory.
const defaultOutputLimit = 64 << 20

// Output is what a command printed and how it ended.
type Output struct {
	stdout, stderr []byte
	state          ProcessState
}

// Stdout is the standard output as a string.
func (o *Output) Stdout() string { return string(o.stdout) }

// StdoutBytes is the standard output. The slice belongs to o.
func (o *Output) StdoutBytes() []byte { return o.stdout }

// Stderr is the standard error as a string.
func (o *Output) Stderr() string { return string(o.stderr) }

// StderrBytes is the standard error. The slice belongs to o.
func (o *Output) StderrBytes() []byte { return o.stderr }

// ExitCode is the exit code, or -1 if a signal ended the command.
func (o *Output) ExitCode() int { return o.state.ExitCode() }

// Success reports an exit code of 0.
func (o *Output) Success() bool { return o.state.Success() }

// State tells how the command ended: its signal and the time it took.
func (o *Output) State() *ProcessState { return &o.state }

// Exec runs a command and returns what it printed. No shell is involved; a
// name without a slash is looked up in the guest's PATH. An exit code other
// than 0 is not an error.
//
// Errors: *[ExecError] if the command could not start, *[InterruptedError],
// which holds what was captured so far, when ctx or the command's own timeout
// ended (its whole process group is killed then), and ErrNotRunning or a
// *[CrashError] when the sandbox has ended.
func (s *Sandbox) Exec(ctx context.Context, name string, args []string, opts ...ExecOption) (*Output, error) {
	e, err := resolveExec(name, args, opts)
	if err == nil && e.stdinPipe {
		err = invalid("WithExecStdinPipe", "Exec has no handle to take the pipe from, use ExecStream")
	}
	if err != nil {
		return nil, s.opErr("exec", err)
	}
	p, err := s.start(ctx, e)
	if err != nil {
		return nil, s.opErr("exec", err)
	}
	defer p.release()
	out, err := p.collect()
	return out, s.opErr("exec", err)
}

// Shell runs a script with the sandbox's shell ("sh -c script"); see Exec.
func (s *Sandbox) Shell(ctx context.Context, script string, opts ...ExecOption) (*Output, error) {
	return s.Exec(ctx, s.cfg.Shell, []string{"-c", script}, opts...)
}

// running is a command in the guest with what belongs to it on the host.
type running struct {
	*client.Process
	s      *Sandbox
	ctx    context.Context // ends when the command is to be killed
	cancel context.CancelFunc
	limit  int
	pipe   bool       // the caller writes stdin
	stdin  chan error // how the copy to stdin ended; nil when nothing is copied
}

// start runs the command of e. When ctx or the command's timeout ends its
// process group is killed. The caller must call release.
func (s *Sandbox) start(ctx context.Context, e *execConfig) (*running, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	p := &running{s: s, ctx: ctx, cancel: func() {}, limit: e.limit, pipe: e.stdinPipe}
	if e.timeout > 0 {
		p.ctx, p.cancel = context.WithTimeoutCause(ctx, e.timeout, ErrExecTimeout)
	}
	var err error
	if p.Process, err = s.agent.Exec(p.ctx, &e.request); err != nil {
		err = p.explain(err)
		p.release()
		return nil, err
	}
	if e.stdin != nil {
		p.stdin = make(chan error, 1)
		go func() {
			_, err := io.Copy(p.Stdin(), e.stdin)
			p.stdin <- err // before the command can see the end and exit
			p.Stdin().Close()
		}()
	}
	return p, nil
}

// release gives the command up if it still runs. A reader given as stdin that
// is blocked in Read stays so, as with os/exec.
func (p *running) release() {
	if p.Process != nil {
		p.Close()
	}
	p.cancel()
	p.s.template.learnHot(p.s.machine)
	p.s.finish()
}

// collect takes everything the command prints and waits for its end.
func (p *running) collect() (*Output, error) {
	out := &Output{}
	keep := func(b *[]byte, data []byte) error {
		if len(*b)+len(data) > p.limit {
			return ErrOutputLimit
		}
		*b = append(*b, data...)
		return nil
	}
	for {
		ev, err := p.Next()
		if err == nil {
			switch ev.Kind {
			case client.EventStdout:
				err = keep(&out.stdout, ev.Data)
			case client.EventStderr:
				err = keep(&out.stderr, ev.Data)
			case client.EventExited:
				out.state = newProcessState(p.PID(), ev.Exit)
				return out, nil
			}
		}
		if err != nil {
			return nil, p.interrupted(err, out)
		}
	}
}

// explain turns an error of the agent's client into one of this package.
func (p *running) explain(err error) error {
	if e := asExecError(err); e != nil {
		return e
	}
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	return p.s.lost(err)
}

// interrupted is the error of a command that was cut short, with what it
// printed so far.
func (p *running) interrupted(err error, out *Output) error {
	err = p.explain(err)
	if p.ctx.Err() != nil || errors.Is(err, ErrOutputLimit) {
		return &InterruptedError{Output: out, Err: err}
	}
	return err
}

// InterruptedError is the error of a command that was killed before its end.
type InterruptedError struct {
	// Output is what it had printed; its exit code is -1.
	Output *Output
	// Err is ErrExecTimeout, ErrOutputLimit, or the context's cause.
	Err error
}

func (e *InterruptedError) Error() string { return "command killed: " + e.Err.Error() }

// Unwrap gives the cause.
func (e *InterruptedError) Unwrap() error { return e.Err }
