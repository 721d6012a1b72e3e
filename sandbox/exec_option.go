package sandbox

import (
	"bytes"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

// ExecOption sets one property of a command.
type ExecOption func(*execConfig)

// execConfig is what the options of a command say.
type execConfig struct {
	request   proto.Exec
	env       map[string]string
	rlimits   map[Resource]Rlimit
	stdin     io.Reader
	stdinPipe bool
	timeout   time.Duration
	limit     int
	// detachKeys belong to Attach alone.
	detachKeys string
}

// WithExecCwd sets the directory in which the command starts. The default is
// the sandbox's.
func WithExecCwd(dir string) ExecOption { return func(e *execConfig) { e.request.Cwd = dir } }

// WithExecUser sets the user, in the forms of [WithUser]. The default is the
// sandbox's.
func WithExecUser(spec string) ExecOption { return func(e *execConfig) { e.request.User = spec } }

// WithExecEnv adds variables to the sandbox's environment, or overrides them.
func WithExecEnv(env map[string]string) ExecOption {
	return func(e *execConfig) { e.env = merged(e.env, env) }
}

// WithExecTimeout kills the command's process group after d, with
// ErrExecTimeout. 0, the default, is no limit.
func WithExecTimeout(d time.Duration) ExecOption { return func(e *execConfig) { e.timeout = d } }

// WithExecTTY gives the command a terminal of 24 rows and 80 columns; what it
// prints all comes as stdout. term is the TERM of its environment, such as
// "xterm-256color".
func WithExecTTY(term string) ExecOption {
	return func(e *execConfig) { e.request.TTY, e.request.Term = true, term }
}

// WithExecTTYSize is WithExecTTY with another size to begin with.
func WithExecTTYSize(term string, rows, cols uint16) ExecOption {
	return func(e *execConfig) {
		e.request.TTY, e.request.Term, e.request.Rows, e.request.Cols = true, term, rows, cols
	}
}

// WithExecStdin feeds the command from r until its end. Without any of the
// stdin options it reads /dev/null. A Read of r that is under way when the
// command ends is not waited for.
func WithExecStdin(r io.Reader) ExecOption { return func(e *execConfig) { e.stdin = r } }

// WithExecStdinBytes feeds the command b.
func WithExecStdinBytes(b []byte) ExecOption { return WithExecStdin(bytes.NewReader(b)) }

// WithExecStdinPipe lets the caller of ExecStream write the command's stdin,
// see [ExecHandle.TakeStdin].
func WithExecStdinPipe() ExecOption { return func(e *execConfig) { e.stdinPipe = true } }

// WithExecRlimits sets resource limits of the command, on top of the sandbox's.
func WithExecRlimits(limits map[Resource]Rlimit) ExecOption {
	return func(e *execConfig) { e.rlimits = merged(e.rlimits, limits) }
}

// WithExecOutputLimit bounds how many bytes of each of stdout and stderr Exec
// and Collect keep; a command that prints more is killed with ErrOutputLimit.
// The default is 64 MiB.
func WithExecOutputLimit(n int) ExecOption { return func(e *execConfig) { e.limit = n } }

// resolveExec applies the options and checks the result.
func resolveExec(name string, args []string, opts []ExecOption) (*execConfig, error) {
	e := &execConfig{limit: defaultOutputLimit}
	for _, o := range opts {
		if o != nil {
			o(e)
		}
	}
	e.request.Argv = append([]string{name}, args...)
	e.request.Stdin = e.stdin != nil || e.stdinPipe
	if err := e.check(); err != nil {
		return nil, err
	}
	e.request.Env = append(e.request.Env, envList(e.env)...)
	e.request.Rlimits = rlimitList(e.rlimits)
	return e, nil
}

func (e *execConfig) check() error {
	if e.request.Argv[0] == "" {
		return invalid("command", "it is empty")
	}
	if slices.ContainsFunc(e.request.Argv, func(s string) bool { return strings.IndexByte(s, 0) >= 0 }) {
		return invalid("command", "an argument holds a NUL byte")
	}
	if cwd := e.request.Cwd; cwd != "" && (!path.IsAbs(cwd) || strings.IndexByte(cwd, 0) >= 0) {
		return invalid("WithExecCwd", "%q is not an absolute path", cwd)
	}
	switch {
	case e.timeout < 0:
		return invalid("WithExecTimeout", "%v is negative", e.timeout)
	case e.limit < 0:
		return invalid("WithExecOutputLimit", "%d is negative", e.limit)
	case e.stdin != nil && e.stdinPipe:
		return invalid("WithExecStdinPipe", "stdin is given as a reader already")
	}
	if err := checkUser("WithExecUser", e.request.User); err != nil {
		return err
	}
	if err := checkRlimits("WithExecRlimits", e.rlimits); err != nil {
		return err
	}
	return checkEnv("WithExecEnv", e.env)
}

// envList makes "KEY=value" strings in a stable order.
func envList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

func rlimitList(limits map[Resource]Rlimit) []proto.Rlimit {
	var list []proto.Rlimit
	for r, l := range limits {
		list = append(list, proto.Rlimit{Resource: resourceNumbers[r], Soft: l.Soft, Hard: l.Hard})
	}
	slices.SortFunc(list, func(a, b proto.Rlimit) int { return int(a.Resource) - int(b.Resource) })
	return list
}
