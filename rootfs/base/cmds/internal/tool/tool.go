// Package tool is the frame of a command: its streams, its messages, its exit
// status and its options.
package tool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// Env is what a command runs in. It is not for concurrent use.
type Env struct {
	Name   string
	In     io.Reader
	Out    *bufio.Writer // flushed at the end
	Err    io.Writer
	Status int // exit status so far
}

// Main runs a command over the arguments and streams of this process, and exits.
func Main(name string, run func(e *Env, args []string)) {
	e := &Env{Name: name, In: os.Stdin, Out: bufio.NewWriter(os.Stdout), Err: os.Stderr}
	run(e, os.Args[1:])
	if err := e.Out.Flush(); err != nil {
		e.Fail(err)
	}
	os.Exit(e.Status)
}

// Fail reports an error. The exit status becomes 1 unless it is worse already.
func (e *Env) Fail(err error) { e.FailWith(1, err) }

// Failf is Fail with a format.
func (e *Env) Failf(format string, args ...any) { e.Fail(fmt.Errorf(format, args...)) }

// FailWith reports an error. The exit status becomes at least status.
func (e *Env) FailWith(status int, err error) {
	// What was printed before belongs before the message.
	if err2 := e.Out.Flush(); err2 != nil && !errors.Is(err, err2) {
		status = max(status, 1)
	}
	// The operation says little that the command's name does not.
	if p, ok := err.(*fs.PathError); ok {
		err = fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	fmt.Fprintf(e.Err, "%s: %v\n", e.Name, err)
	e.Status = max(e.Status, status)
}

// Open opens a file for reading; "-" is standard input.
func (e *Env) Open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(e.In), nil
	}
	return os.Open(name)
}

// Each calls f with every file, or with standard input when there are none, and
// reports what goes wrong with one before it goes on to the next.
func (e *Env) Each(names []string, f func(name string, r io.Reader) error) {
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, name := range names {
		r, err := e.Open(name)
		if err == nil {
			err = f(name, r)
			r.Close()
		}
		if err != nil {
			e.Fail(err)
		}
	}
}

// Lines calls f with every line of r, without its end. What f wrote is flushed
// before the next read can block.
func (e *Env) Lines(r io.Reader, f func(line string)) error {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if n := len(line); n > 0 {
			if line[n-1] == '\n' {
				n--
			}
			f(line[:n])
		}
		if in.Buffered() == 0 {
			if err := e.Out.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Statuses of commands that did not run, as all shells have them.
const (
	NotRunnable = 126
	NotFound    = 127
)

// Run runs a command on the streams of this process, except for standard input,
// and waits for it. The status is 128 and the signal's number for one that was
// killed; err is set only when the command could not be started.
func (e *Env) Run(args []string, in io.Reader) (status int, err error) {
	if err := e.Out.Flush(); err != nil {
		return NotRunnable, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stderr = in, e.Err
	cmd.Stdout = os.Stdout
	if e.In != os.Stdin {
		cmd.Stdout = e.Out
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return NotFound, err
		}
		return NotRunnable, err
	}
	cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
