package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// intercepted are the builtins that the interpreter lacks, or has without
// processes.
var intercepted = map[string]bool{
	"kill": true, "wait": true, "jobs": true, "trap": true, "umask": true, "hash": true, "ulimit": true,
}

// call sees every simple command before it runs.
func (s *shell) call(ctx context.Context, args []string) ([]string, error) {
	name := args[0]
	switch {
	case strings.HasPrefix(name, prefix):
		return args, nil
	case s.jobs.of(interp.HandlerCtx(ctx)).cancelled():
		// The job was killed while it had no process that could be.
		return []string{"exit", "143"}, nil
	case name == "eval":
		args = []string{"eval", s.rewriteText(strings.Join(args[1:], " "))}
	case name == "command" && len(args) > 1 && intercepted[args[1]]:
		args = append([]string{prefix + args[1]}, args[2:]...)
	case name == "command" && len(args) > 1 && args[1] == "-V":
		args = append([]string{"type"}, args[2:]...)
	case intercepted[name] && !s.names.has(name):
		args = append([]string{prefix + name}, args[1:]...)
	}
	if text := s.traps.take(); text != "" {
		// Signals came in: their commands run before this one.
		quoted := make([]string, len(args))
		for i, a := range args {
			q, err := syntax.Quote(a, syntax.LangBash)
			if err != nil {
				return nil, err
			}
			quoted[i] = q
		}
		args = []string{"eval", text + "\n" + strings.Join(quoted, " ")}
	}
	return args, nil
}

// exec runs a command that is neither function nor builtin of the interpreter.
func (s *shell) exec(ctx context.Context, args []string) error {
	hc := interp.HandlerCtx(ctx)
	switch args[0] {
	case jobNew:
		return s.jobNew(ctx, hc)
	case jobEnd:
		return s.jobEnd(hc)
	case jobStarted:
		return s.jobStarted(ctx, hc)
	case doExec:
		status := s.replace(hc, args[1:])
		return hc.Builtin(ctx, []string{"exit", fmt.Sprint(status)})
	case tailCall:
		return interp.ExitStatus(s.replace(hc, args[1:]))
	case prefix + "kill":
		return s.kill(hc, args[1:])
	case prefix + "wait":
		return s.wait(hc, args[1:])
	case prefix + "jobs":
		s.jobs.list(hc.Stdout)
		return nil
	case prefix + "trap":
		return s.trap(ctx, hc, args[1:])
	case prefix + "umask":
		return umask(hc, args[1:])
	case prefix + "ulimit":
		return s.ulimit(hc, args[1:])
	case prefix + "hash":
		return nil
	}
	return s.spawn(hc, args)
}

// find looks a command up and says what is wrong, with the status for it.
func find(hc interp.HandlerContext, name string) (string, int) {
	path, err := interp.LookPathDir(hc.Dir, hc.Env, name)
	if err == nil {
		return path, 0
	}
	if strings.Contains(name, "/") {
		if !strings.HasPrefix(name, "/") {
			name = hc.Dir + "/" + name
		}
		switch info, err := os.Stat(name); {
		case err == nil && info.IsDir():
			fmt.Fprintf(hc.Stderr, "sh: %s: is a directory\n", name)
			return "", 126
		case err == nil:
			fmt.Fprintf(hc.Stderr, "sh: %s: permission denied\n", name)
			return "", 126
		}
	}
	fmt.Fprintf(hc.Stderr, "sh: %s: not found\n", name)
	return "", 127
}

// environ is what commands inherit.
func environ(env expand.Environ) []string {
	var order []string
	values := map[string]string{}
	for name, v := range env.Each {
		if !v.IsSet() || !v.Exported || v.Kind != expand.String {
			delete(values, name)
			continue
		}
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = v.String()
	}
	var list []string
	for _, name := range order {
		if v, ok := values[name]; ok {
			list = append(list, name+"="+v)
			delete(values, name)
		}
	}
	return list
}

// spawn runs a command as a child and waits for it.
func (s *shell) spawn(hc interp.HandlerContext, args []string) error {
	job := s.jobs.of(hc)
	path, status := find(hc, args[0])
	if status != 0 {
		return interp.ExitStatus(status)
	}
	cmd := command(hc, path, args)
	err := cmd.Start()
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without a first line that names its interpreter.
		cmd = command(hc, self(), append([]string{"sh", path}, args[1:]...))
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintf(hc.Stderr, "sh: %s: %v\n", args[0], cause(err))
		return interp.ExitStatus(126)
	}
	job.began(cmd.Process.Pid, strings.Join(args, " "))
	err = cmd.Wait()
	job.ended(cmd.Process.Pid)
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		if s.interactive && job == nil {
			fmt.Fprintln(os.Stderr) // the next prompt starts on a line of its own
		}
		return interp.ExitStatus(128 + ws.Signal())
	}
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return interp.ExitStatus(code)
	}
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		fmt.Fprintf(hc.Stderr, "sh: %s: %v\n", args[0], err)
		return interp.ExitStatus(1)
	}
	return nil
}

func command(hc interp.HandlerContext, path string, args []string) *exec.Cmd {
	return &exec.Cmd{
		Path: path, Args: args, Env: environ(hc.Env), Dir: hc.Dir,
		Stdin: hc.Stdin, Stdout: hc.Stdout, Stderr: hc.Stderr,
	}
}

// self is this program, in which the first argument selects the shell.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return "/bin/sh"
	}
	return path
}

func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// replace turns this process into the command. It returns only when that is not
// possible; where the redirections are not plain files it runs a child.
func (s *shell) replace(hc interp.HandlerContext, args []string) int {
	path, status := find(hc, args[0])
	if status != 0 {
		return status
	}
	files := [3]*os.File{}
	for i, f := range []any{hc.Stdin, hc.Stdout, hc.Stderr} {
		files[i], _ = f.(*os.File)
		if files[i] == nil {
			return s.status(s.spawn(hc, args))
		}
	}
	// Copies first: the three may be each other's numbers.
	var copies [3]int
	for i, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 10)
		if err != nil {
			fmt.Fprintf(os.Stderr, "sh: exec: %v\n", err)
			return 126
		}
		copies[i] = fd
	}
	for i, fd := range copies {
		if err := unix.Dup2(fd, i); err != nil {
			return 126
		}
	}
	if err := os.Chdir(hc.Dir); err != nil {
		fmt.Fprintf(os.Stderr, "sh: exec: %v\n", err)
		return 126
	}
	env := environ(hc.Env)
	err := syscall.Exec(path, args, env)
	if err == syscall.ENOEXEC {
		err = syscall.Exec(self(), append([]string{"sh", path}, args[1:]...), env)
	}
	fmt.Fprintf(os.Stderr, "sh: %s: %v\n", args[0], err)
	return 126
}

// umask prints or sets the mask, which all of the shell shares.
func umask(hc interp.HandlerContext, args []string) error {
	if len(args) == 0 {
		mask := unix.Umask(0o22)
		unix.Umask(mask)
		fmt.Fprintf(hc.Stdout, "%04o\n", mask)
		return nil
	}
	var mask int
	if n, err := fmt.Sscanf(args[0], "%o", &mask); n != 1 || err != nil || mask < 0 || mask > 0o777 {
		fmt.Fprintf(hc.Stderr, "sh: umask: %s: not an octal mask\n", args[0])
		return interp.ExitStatus(1)
	}
	unix.Umask(mask)
	return nil
}
