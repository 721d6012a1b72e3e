package kvmhost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hutchvm/hutch/internal/kvmhost/guest"
	"github.com/hutchvm/hutch/internal/kvmhost/prep"
	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// scratchDir is where the scratch disk is mounted inside.
const scratchDir = "/run/hutch-state"

// Run runs one command in an emulated host of its own and waits for its end.
// When ctx ends the host is killed. An error means that there is no exit
// status; [ExitCode] gives the code that stands for it.
func Run(ctx context.Context, c Config) (Result, error) {
	begin := time.Now()
	if err := c.complete(); err != nil {
		return Result{}, &Error{Op: "configure", Err: err}
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("%w (%v)", ErrTimeout, c.Timeout))
		defer cancel()
	}
	command, err := c.command()
	if err != nil {
		return Result{}, &Error{Op: "configure", Err: err}
	}
	m, err := c.plan(command)
	if err != nil {
		return Result{}, &Error{Op: "prepare", Err: err}
	}
	empty := filepath.Join(filepath.Dir(m.host.States), "empty")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		return Result{}, &Error{Op: "prepare", Err: err}
	}
	state, err := m.frozen(ctx, &c, empty)
	if err != nil {
		return Result{}, &Error{Op: "prepare", Err: err}
	}
	s := &session{config: &c, begin: begin, command: command}
	extra := m.shareArguments(command.Shares, empty)
	var status wire.Status
	if state != "" {
		s.phases.Resumed = true
		status, err = s.host(ctx, m, append(append(extra, stateArguments...), "-incoming", "file:"+state))
		if err != nil && !s.answered && ctx.Err() == nil {
			// Nothing was run: a state that QEMU cannot go on from is no loss.
			fmt.Fprintf(c.Log, "saved state not usable, booting: %v\n", err)
			os.Remove(state)
			state = ""
		}
	}
	if state == "" {
		s.phases.Resumed = false
		status, err = s.host(ctx, m, extra)
	}
	if err != nil {
		return Result{Phases: s.phases}, err
	}
	if status.Error != "" {
		return Result{Code: status.Code, Phases: s.phases}, &Error{Op: "run", Err: fmt.Errorf("%w: %s", ErrStart, status.Error)}
	}
	return Result{Code: status.Code, Phases: s.phases}, nil
}

// plan prepares what the command's machine is made of.
func (c *Config) plan(command *wire.Command) (*shape, error) {
	host, err := prep.Prepare(prep.Config{Cache: c.Cache, Log: c.Log})
	if err != nil {
		return nil, err
	}
	if host.QEMU.Major < goodQEMU && c.CPUs > 1 {
		fmt.Fprintf(c.Log, "QEMU %d can hang with several emulated CPUs: using one; version %d or newer is better\n", host.QEMU.Major, goodQEMU)
		c.CPUs = 1
	}
	command.Modules = host.Modules
	command.Seed = make([]byte, 64)
	rand.Read(command.Seed)
	initrd, err := initramfs(c.Init, host.Modules)
	if err != nil {
		return nil, err
	}
	return &shape{host: host, memory: c.Memory, cpus: c.CPUs, shares: max(usualShares, len(command.Shares)), initrd: initrd}, nil
}

// usualShares is the number of share devices that every machine has, so that the
// same saved state serves most commands.
const usualShares = 2

// host runs the command on one emulator.
func (s *session) host(ctx context.Context, m *shape, extra []string) (wire.Status, error) {
	s.phases.Prepared = time.Since(s.begin)
	var err error
	if s.emulator, err = m.launch(extra...); err != nil {
		return wire.Status{}, &Error{Op: "start QEMU", Err: err}
	}
	status, err := s.run(ctx)
	s.emulator.stop()
	s.phases.Down = time.Since(s.begin)
	return status, err
}

// ExitCode is the code for a process that reports what Run returned.
func ExitCode(r Result, err error) int {
	switch {
	case err == nil:
		return r.Code
	case errors.Is(err, ErrTimeout):
		return CodeTimeout
	case errors.Is(err, ErrStart):
		return r.Code
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return CodeNotFound
	case errors.Is(err, os.ErrPermission):
		return CodeCannotRun
	default:
		return CodeHost
	}
}

// Exec replaces this process by the command, as the direct mode does it. It
// returns only an error.
func Exec(args []string) error {
	path, err := lookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	return &Error{Op: "run " + args[0], Err: err}
}

// lookPath is exec.LookPath that takes a name with a slash as it is.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil // the direct command would be run, and so is this one
	}
	return path, err
}

// complete fills in the defaults and checks the rest.
func (c *Config) complete() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the guest is x86-64, this program is not: %w", errors.ErrUnsupported)
	}
	if len(c.Args) == 0 {
		return fmt.Errorf("%w: no command", ErrConfig)
	}
	if c.Env == nil {
		c.Env = os.Environ()
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.HangAfter == 0 {
		c.HangAfter = DefaultHangAfter
	}
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.CPUs == 0 {
		c.CPUs = DefaultCPUs
	}
	if c.Memory < 256 || c.CPUs < 1 || c.HangAfter < time.Second {
		return fmt.Errorf("%w: memory %d MiB, %d CPUs, silence of %v", ErrConfig, c.Memory, c.CPUs, c.HangAfter)
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	if c.Cache == "" {
		c.Cache = os.Getenv(EnvCache)
	}
	var err error
	if c.Init == "" {
		if c.Init, err = os.Executable(); err != nil {
			return err
		}
	}
	if c.Dir == "" {
		if c.Dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	c.Share = slices.Clone(c.Share) // the caller's stays as it is
	for i, dir := range c.Share {
		if c.Share[i], err = filepath.Abs(dir); err != nil {
			return err
		}
		if info, err := os.Stat(dir); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%w: %s is no directory", ErrConfig, dir)
		}
	}
	return nil
}

// command says to the guest what to run.
func (c *Config) command() (*wire.Command, error) {
	path, err := lookPath(c.Args[0])
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return nil, err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	umask := syscall.Umask(0)
	syscall.Umask(umask)

	shares := slices.Clone(c.Share)
	for _, dir := range testOutputs(c.Args, c.Env, c.Dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			shares = append(shares, dir)
		}
	}
	w := &wire.Command{
		Path: path, Args: c.Args, Env: withInside(c.Env), Dir: c.Dir,
		UID: os.Geteuid(), GID: os.Getegid(), Extra: groups,
		Umask: umask, NoFile: [2]uint64{limit.Cur, limit.Max}, Hostname: hostname,
		Overlay: overlays(os.Getenv), Spread: c.Spread, Shares: outermost(shares), Scratch: scratchDir, Load: c.Modules,
	}
	return w, c.connect(w)
}

// withInside adds what tells a program that it is inside, and where it can
// keep state. Hutch's own state goes to the scratch disk unless the caller wants
// it elsewhere, because the home directory inside has no user attributes.
func withInside(env []string) []string {
	out := make([]string, 0, len(env)+3)
	hasHome := false
	for _, e := range env {
		switch name, _, _ := strings.Cut(e, "="); name {
		case EnvMode, EnvState:
			continue
		case envHome:
			hasHome = true
		}
		out = append(out, e)
	}
	if !hasHome {
		out = append(out, envHome+"="+scratchDir+"/home")
	}
	return append(out, EnvMode+"="+inside, EnvState+"="+scratchDir)
}

// envHome is where Hutch keeps its state.
const envHome = "HUTCH_HOME"

// Guest is the entry of the inside; see [guest.Main]. A program that uses this
// package with an empty [Config.Init] calls it first in its main.
func Guest() { guest.Main() }
