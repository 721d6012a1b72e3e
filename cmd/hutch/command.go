package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

// commandFlags say how a command is run in a sandbox.
type commandFlags struct {
	timeout            time.Duration
	tty, timings, json bool
	detachKeys         string
	options            []sandbox.ExecOption
}

func (f *commandFlags) add(c *cobra.Command) {
	f.addExec(c)
	fl := c.Flags()
	fl.BoolVar(&f.timings, "timings", false, "print how long each phase took, to standard error")
	fl.BoolVar(&f.json, "json", false, "print the timings as JSON")
}

// addExec adds the flags that make sense for a sandbox that runs already.
func (f *commandFlags) addExec(c *cobra.Command) {
	fl := c.Flags()
	fl.DurationVar(&f.timeout, "timeout", 0, "kill the command after this time")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal, connected to this one")
	fl.StringVar(&f.detachKeys, "detach-keys", sandbox.DefaultDetachKeys, "keys that leave a terminal and end the command")
}

// bringUp waits for a sandbox that is being created or started, and shows how
// the pull of its image goes. A signal ends it.
func bringUp(ctx context.Context, stderr io.Writer, quiet bool, signals <-chan os.Signal, begin func(context.Context) *sandbox.PullSession) (*sandbox.Sandbox, error) {
	booting, booted := onSignal(ctx, signals)
	session := begin(booting)
	show := &unlessCached{pullDisplay: newPullDisplay(booting, stderr, quiet)}
	for e := range session.Events() {
		show.event(e)
	}
	show.close()
	sb, err := session.Sandbox()
	if s := booted(); s != 0 {
		if err == nil {
			sb.Close()
		}
		return nil, exitCode(exitSignal + int(s))
	}
	return sb, err
}

// unlessCached shows nothing of an image that is here already.
type unlessCached struct {
	pullDisplay
	resolving *sandbox.PullEvent
	cached    bool
}

func (u *unlessCached) event(e sandbox.PullEvent) {
	switch e.Kind {
	case sandbox.PullResolving:
		u.resolving = &e
		return
	case sandbox.PullResolved:
		u.cached = e.Cached
	}
	if u.cached {
		return
	}
	if u.resolving != nil {
		u.pullDisplay.event(*u.resolving)
		u.resolving = nil
	}
	u.pullDisplay.event(e)
}

// measured runs the command and prints the timings that were asked for.
func (f *commandFlags) measured(ctx context.Context, sb *sandbox.Sandbox, argv []string, signals <-chan os.Signal, stderr io.Writer) error {
	begin := time.Now()
	err := f.command(ctx, sb, argv, signals)
	if f.timings || f.json {
		f.printTimings(stderr, sb.Timings(), time.Since(begin))
	}
	return err
}

// onSignal gives a context that the first signal ends; booted stops that and
// tells which signal it was, 0 for none.
func onSignal(ctx context.Context, signals <-chan os.Signal) (_ context.Context, booted func() syscall.Signal) {
	ctx, cancel := context.WithCancel(ctx)
	stop := make(chan struct{})
	got := make(chan syscall.Signal, 1)
	go func() {
		select {
		case s := <-signals:
			got <- s.(syscall.Signal)
		case <-stop:
			got <- 0
		}
		cancel()
	}()
	return ctx, func() syscall.Signal {
		close(stop)
		return <-got
	}
}

// command runs the command, forwards signals to it, and gives its exit code as
// an error.
func (f *commandFlags) command(ctx context.Context, sb *sandbox.Sandbox, args []string, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.tty {
		go func() { // the terminal is raw: these come from elsewhere
			<-signals
			cancel()
		}()
		state, err := sb.Attach(ctx, args[0], args[1:], append(f.options, sandbox.WithExecDetachKeys(f.detachKeys), sandbox.WithExecTimeout(f.timeout))...)
		if errors.Is(err, sandbox.ErrDetached) {
			fmt.Fprint(os.Stderr, "\r\n")
			return nil
		}
		if err != nil {
			return err
		}
		return codeOfState(state)
	}
	cmd := sb.Command(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Options = append(f.options, sandbox.WithExecTimeout(f.timeout))
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go forward(cmd.Process, signals, done, cancel)
	err := cmd.Wait()
	var ee *sandbox.ExitError
	if errors.As(err, &ee) {
		return codeOfState(ee.ProcessState)
	}
	return err
}

// forward passes signals on to the command; a second one of a kind that people
// send kills it.
func forward(p *sandbox.Process, signals <-chan os.Signal, done <-chan struct{}, kill func()) {
	seen := map[os.Signal]bool{}
	for {
		select {
		case s := <-signals:
			if seen[s] {
				kill()
			}
			seen[s] = true
			p.Signal(s)
		case <-done:
			return
		}
	}
}

func codeOfState(s *sandbox.ProcessState) error {
	switch {
	case s.Success():
		return nil
	case s.Signal() != 0:
		return exitCode(exitSignal + int(s.Signal()))
	}
	return exitCode(s.ExitCode())
}

// codeOf is the exit code for an error of hutch's own.
func codeOf(err error) int {
	var ee *sandbox.ExecError
	if errors.As(err, &ee) {
		switch ee.Kind {
		case sandbox.ExecNotFound:
			return exitNotFound
		case sandbox.ExecPermissionDenied, sandbox.ExecNotExecutable:
			return exitNotExecutable
		}
	}
	if errors.Is(err, sandbox.ErrExecTimeout) {
		return exitTimeout
	}
	return exitFailure
}

// exitTimeout is the code that timeout(1) uses.
const exitTimeout = 124

func (f *commandFlags) printTimings(w io.Writer, t sandbox.Timings, command time.Duration) {
	phases := []struct {
		Name string        `json:"phase"`
		Took time.Duration `json:"nanoseconds"`
		What string        `json:"-"`
	}{
		{"prepare", t.Prepare, "options, name, kernel and images"},
		{"machine", t.Machine, "memory, vCPUs, devices, kernel loaded"},
		{"kernel", t.Kernel, "first instruction to the agent's"},
		{"agent", t.Agent, "agent's start to its greeting"},
		{"setup", t.Setup, "root file system, user, limits"},
		{"create", t.Total, "all of the above"},
		{"command", command, "start to exit"},
	}
	if t.Template {
		phases[2].What, phases[3].What = "not booted: from a template", "the template's guest woke, to its greeting"
	}
	if f.json {
		json.NewEncoder(w).Encode(phases)
		return
	}
	for _, p := range phases {
		fmt.Fprintf(w, "%-8s %9.1f ms  %s\n", p.Name, float64(p.Took)/1e6, p.What)
	}
}
