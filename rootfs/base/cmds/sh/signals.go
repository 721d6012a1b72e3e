package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/signame"
)

// traps are commands to run when signals arrive. They run between commands, or
// end a wait.
type traps struct {
	mu      sync.Mutex
	text    map[unix.Signal]string
	pending []unix.Signal
	signals chan os.Signal
	wake    chan unix.Signal // holds at most one
}

func (t *traps) init() {
	t.text = map[unix.Signal]string{}
	t.wake = make(chan unix.Signal, 1)
}

// take returns the commands of the signals that arrived since the last call.
func (t *traps) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.pending) == 0 {
		return ""
	}
	var lines []string
	for _, sig := range t.pending {
		if text := t.text[sig]; text != "" {
			lines = append(lines, text)
		}
	}
	t.pending = nil
	select {
	case <-t.wake:
	default:
	}
	return strings.Join(lines, "\n")
}

// set makes text run at sig.
func (t *traps) set(sig unix.Signal, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.signals == nil {
		t.signals = make(chan os.Signal, 16)
		go t.receive(t.signals)
	}
	t.text[sig] = text
	signal.Notify(t.signals, sig)
}

func (t *traps) receive(signals <-chan os.Signal) {
	for sig := range signals {
		n, ok := sig.(syscall.Signal)
		if !ok {
			continue
		}
		t.mu.Lock()
		t.pending = append(t.pending, n)
		t.mu.Unlock()
		select {
		case t.wake <- n:
		default:
		}
	}
}

func (t *traps) clear(sig unix.Signal, ignore bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.text, sig)
	if ignore {
		signal.Ignore(sig)
		return
	}
	signal.Reset(sig)
}

// trap is the builtin. EXIT and ERR are the interpreter's.
func (s *shell) trap(ctx context.Context, hc interp.HandlerContext, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		s.traps.print(hc)
		return hc.Builtin(ctx, []string{"trap"})
	}
	action, names := args[0], args[1:]
	if len(names) == 0 {
		action, names = "-", args
	}
	for _, name := range names {
		if name == "0" {
			name = "EXIT"
		}
		if name == "EXIT" || name == "ERR" {
			if err := hc.Builtin(ctx, []string{"trap", "--", action, name}); err != nil {
				return err
			}
			continue
		}
		sig, ok := signame.Parse(name)
		if !ok || sig == 0 {
			fmt.Fprintf(hc.Stderr, "sh: trap: %s: bad signal\n", name)
			return interp.ExitStatus(1)
		}
		switch action {
		case "-":
			s.traps.clear(sig, false)
		case "":
			s.traps.clear(sig, true)
		default:
			s.traps.set(sig, s.rewriteText(action))
		}
	}
	return nil
}

func (t *traps) print(hc interp.HandlerContext) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for sig, text := range t.text {
		list = append(list, fmt.Sprintf("trap -- %q %s\n", text, signame.Of(sig)))
	}
	sort.Strings(list)
	for _, line := range list {
		fmt.Fprint(hc.Stdout, line)
	}
}

// kill is the builtin: it knows jobs as well as processes.
func (s *shell) kill(hc interp.HandlerContext, args []string) error {
	sig := unix.SIGTERM
	fail := func(format string, a ...any) error {
		fmt.Fprintf(hc.Stderr, "sh: kill: "+format+"\n", a...)
		return interp.ExitStatus(1)
	}
	if len(args) > 0 {
		name, isFlag := strings.CutPrefix(args[0], "-")
		switch {
		case args[0] == "--":
			args = args[1:]
		case name == "l":
			if err := signame.List(hc.Stdout, args[1:]); err != nil {
				return fail("%v", err)
			}
			return nil
		case isFlag:
			args = args[1:]
			if (name == "s" || name == "n") && len(args) > 0 {
				name, args = args[0], args[1:]
			}
			var ok bool
			if sig, ok = signame.Parse(name); !ok && name != "0" {
				return fail("%s: unknown signal", name)
			}
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
		}
	}
	if len(args) == 0 {
		return fail("usage: kill [-signal] pid...")
	}
	var result error
	for _, arg := range args {
		if b := s.jobs.find(arg); b != nil {
			if err := b.signal(sig); err != nil {
				result = fail("(%s): %v", arg, err)
			}
			continue
		}
		pid, err := strconv.Atoi(arg)
		if err != nil {
			result = fail("%s: not a process or job", arg)
			continue
		}
		if err := unix.Kill(pid, sig); err != nil {
			result = fail("(%d): %v", pid, err)
		}
	}
	return result
}
