package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

// runFlags are the flags of hutch run.
type runFlags struct {
	name, workdir, user, hostname, shell string
	cpus                                 int
	memory                               byteSize
	env, envFiles, labels, ulimits       []string
	maxDuration, timeout                 time.Duration
	tty, timings, json                   bool
	detachKeys                           string
	kernel, initramfs, kvm, home         string
	noTemplate                           bool
	mount                                mountFlags
}

func newRun() *cobra.Command {
	f := &runFlags{memory: 512 << 20}
	c := &cobra.Command{
		Use:   "run [flags] [--] [COMMAND [ARG...]]",
		Short: "Boot a sandbox, run a command in it, and remove it",
		Long: "Run boots a sandbox, runs COMMAND in it with hutch's standard streams, and removes the sandbox.\n" +
			"Without COMMAND it runs a shell. The exit code is the command's, or 125 when hutch itself failed,\n" +
			"126 when the command is not executable, 127 when it was not found, 128+N when signal N ended it.",
		Example: "  hutch run -- uname -a\n  hutch run -t\n  echo hello | hutch run -m 256M -e NAME=you -- sh -c 'cat; echo $NAME'",
		RunE: func(c *cobra.Command, args []string) error {
			return f.run(c.Context(), args, c.ErrOrStderr())
		},
	}
	c.Flags().SetInterspersed(false)
	fl := c.Flags()
	fl.StringVarP(&f.name, "name", "n", "", "name of the sandbox (default: a random one)")
	fl.IntVarP(&f.cpus, "cpus", "c", 1, "virtual CPUs, 1 to 64")
	fl.VarP(&f.memory, "memory", "m", "memory, such as 256M or 2G; host memory is used as the guest touches it")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "environment variable KEY=VALUE, or KEY to pass on hutch's own")
	fl.StringArrayVar(&f.envFiles, "env-file", nil, "file with one KEY=VALUE a line")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "working directory in the guest")
	fl.StringVarP(&f.user, "user", "u", "", "user: name, uid, name:group or uid:gid")
	fl.StringVar(&f.hostname, "hostname", "", "host name (default: the sandbox's name)")
	fl.StringVar(&f.shell, "shell", "/bin/sh", "shell to run when no command is given")
	fl.StringArrayVar(&f.ulimits, "ulimit", nil, "resource limit NAME=SOFT[:HARD], such as nofile=1024:4096")
	fl.StringArrayVarP(&f.labels, "label", "l", nil, "label KEY=VALUE")
	fl.DurationVar(&f.maxDuration, "max-duration", 0, "stop the sandbox after this time")
	fl.DurationVar(&f.timeout, "timeout", 0, "kill the command after this time")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal, connected to this one")
	fl.StringVar(&f.detachKeys, "detach-keys", sandbox.DefaultDetachKeys, "keys that leave a terminal and end the sandbox")
	fl.BoolVar(&f.timings, "timings", false, "print how long each phase took, to standard error")
	fl.BoolVar(&f.json, "json", false, "print the timings as JSON")
	f.mount.add(c)
	fl.StringVar(&f.kernel, "kernel", "", "boot this vmlinux or bzImage instead of the embedded kernel")
	fl.StringVar(&f.initramfs, "initramfs", "", "boot this initramfs instead of the embedded one")
	fl.BoolVar(&f.noTemplate, "no-template", false, "boot the kernel instead of starting from the snapshot of a booted guest")
	fl.StringVar(&f.kvm, "kvm", "", "KVM device (default /dev/kvm)")
	fl.StringVar(&f.home, "home", "", "directory for caches and records (default $HUTCH_HOME)")
	return c
}

// options turns the flags into options of the SDK, which checks them.
func (f *runFlags) options(ctx context.Context) ([]sandbox.Option, error) {
	env, err := parseEnv(f.env, f.envFiles)
	if err != nil {
		return nil, err
	}
	labels, err := parsePairs("label", f.labels)
	if err != nil {
		return nil, err
	}
	limits, err := parseUlimits(f.ulimits)
	if err != nil {
		return nil, err
	}
	mounts, err := f.mount.mounts(ctx, f.home)
	if err != nil {
		return nil, err
	}
	opts := []sandbox.Option{
		sandbox.WithMounts(mounts),
		sandbox.WithEphemeral(), sandbox.WithCPUs(f.cpus), sandbox.WithMemory(uint64(f.memory)), sandbox.WithEnv(env),
		sandbox.WithLabels(labels), sandbox.WithRlimits(limits), sandbox.WithMaxDuration(f.maxDuration),
		sandbox.WithWorkdir(f.workdir), sandbox.WithUser(f.user), sandbox.WithShell(f.shell), sandbox.WithHome(f.home),
		sandbox.WithKernel(f.kernel), sandbox.WithInitramfs(f.initramfs), sandbox.WithKVMDevice(f.kvm),
	}
	if f.hostname != "" {
		opts = append(opts, sandbox.WithHostname(f.hostname))
	}
	if f.noTemplate {
		opts = append(opts, sandbox.WithoutTemplate())
	}
	return opts, nil
}

func (f *runFlags) run(ctx context.Context, args []string, stderr io.Writer) error {
	opts, err := f.options(ctx)
	if err != nil {
		return err
	}
	if f.name == "" {
		f.name = randomName()
	}
	if len(args) == 0 {
		args = []string{f.shell}
	}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	booting, booted := onSignal(ctx, signals)
	sb, err := sandbox.Create(booting, f.name, opts...)
	if s := booted(); s != 0 {
		if err == nil {
			sb.Close()
		}
		return exitCode(exitSignal + int(s))
	}
	if err != nil {
		return err
	}
	defer sb.Close()

	begin := time.Now()
	err = f.command(ctx, sb, args, signals)
	if f.timings || f.json {
		t := sb.Timings()
		f.printTimings(stderr, t, time.Since(begin))
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
func (f *runFlags) command(ctx context.Context, sb *sandbox.Sandbox, args []string, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.tty {
		go func() { // the terminal is raw: these come from elsewhere
			<-signals
			cancel()
		}()
		state, err := sb.Attach(ctx, args[0], args[1:], sandbox.WithExecDetachKeys(f.detachKeys), sandbox.WithExecTimeout(f.timeout))
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
	cmd.Options = []sandbox.ExecOption{sandbox.WithExecTimeout(f.timeout)}
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

func (f *runFlags) printTimings(w io.Writer, t sandbox.Timings, command time.Duration) {
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
