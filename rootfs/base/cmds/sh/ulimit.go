package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/interp"
)

// limit is a resource that ulimit knows.
type limit struct {
	letter   byte
	resource int
	unit     uint64 // of the numbers that people write, in the kernel's
	text     string
}

var limits = []limit{
	{'c', unix.RLIMIT_CORE, 512, "core file size (blocks)"},
	{'d', unix.RLIMIT_DATA, 1024, "data segment (kB)"},
	{'e', unix.RLIMIT_NICE, 1, "scheduling priority"},
	{'f', unix.RLIMIT_FSIZE, 512, "file size (blocks)"},
	{'i', unix.RLIMIT_SIGPENDING, 1, "pending signals"},
	{'l', unix.RLIMIT_MEMLOCK, 1024, "locked memory (kB)"},
	{'m', unix.RLIMIT_RSS, 1024, "resident memory (kB)"},
	{'n', unix.RLIMIT_NOFILE, 1, "open files"},
	{'q', unix.RLIMIT_MSGQUEUE, 1, "message queues (bytes)"},
	{'r', unix.RLIMIT_RTPRIO, 1, "real-time priority"},
	{'s', unix.RLIMIT_STACK, 1024, "stack size (kB)"},
	{'t', unix.RLIMIT_CPU, 1, "CPU time (seconds)"},
	{'u', unix.RLIMIT_NPROC, 1, "processes"},
	{'v', unix.RLIMIT_AS, 1024, "virtual memory (kB)"},
	{'x', unix.RLIMIT_LOCKS, 1, "file locks"},
}

// errLimitUsage is what ulimit says when it is called wrongly.
var errLimitUsage = errors.New("usage: ulimit [-H|-S] [-a | -cdefilmnqrstuvx] [limit|soft|hard|unlimited]")

// limitCall is a parsed ulimit command.
type limitCall struct {
	soft, hard, all bool
	which           []limit
	value           string // empty: show
}

func parseLimit(args []string) (*limitCall, error) {
	c := &limitCall{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0][1:]
		args = args[1:]
		if word == "-" {
			break
		}
	letters:
		for i := range len(word) {
			switch word[i] {
			case 'S':
				c.soft = true
			case 'H':
				c.hard = true
			case 'a':
				c.all = true
			default:
				for _, l := range limits {
					if l.letter == word[i] {
						c.which = append(c.which, l)
						continue letters
					}
				}
				return nil, errLimitUsage
			}
		}
	}
	if len(args) > 1 || len(args) == 1 && (c.all || len(c.which) > 1) {
		return nil, errLimitUsage
	}
	if len(args) == 1 {
		c.value = args[0]
	}
	if c.all {
		c.which = limits
	}
	if len(c.which) == 0 {
		for _, l := range limits {
			if l.letter == 'f' { // the one that POSIX means
				c.which = []limit{l}
			}
		}
	}
	return c, nil
}

// ulimit shows or sets limits. Subshells are not processes of their own here:
// what they set, all of the shell has.
func (s *shell) ulimit(hc interp.HandlerContext, args []string) error {
	c, err := parseLimit(args)
	if err == nil && c.value == "" {
		err = c.show(hc.Stdout)
	} else if err == nil {
		err = c.set(c.which[0])
	}
	if err != nil {
		fmt.Fprintf(hc.Stderr, "sh: ulimit: %v\n", err)
		return interp.ExitStatus(1)
	}
	return nil
}

func (c *limitCall) show(w io.Writer) error {
	for _, l := range c.which {
		r, err := inherited(l.resource)
		if err != nil {
			return err
		}
		v := r.Cur
		if c.hard && !c.soft {
			v = r.Max
		}
		text := "unlimited"
		if v != unix.RLIM_INFINITY {
			text = strconv.FormatUint(v/l.unit, 10)
		}
		if len(c.which) > 1 {
			text = fmt.Sprintf("-%c: %-28s %s", l.letter, l.text, text)
		}
		fmt.Fprintln(w, text)
	}
	return nil
}

func (c *limitCall) set(l limit) error {
	r, err := inherited(l.resource)
	if err != nil {
		return err
	}
	var v uint64
	switch c.value {
	case "unlimited":
		v = unix.RLIM_INFINITY
	case "soft":
		v = r.Cur
	case "hard":
		v = r.Max
	default:
		n, err := strconv.ParseUint(c.value, 10, 64)
		if err != nil || n > unix.RLIM_INFINITY/l.unit {
			return fmt.Errorf("%s: not a limit", c.value)
		}
		v = n * l.unit
	}
	if c.soft || !c.hard {
		r.Cur = v
	}
	if c.hard || !c.soft {
		r.Max = v
	}
	// The syscall package's function, not the one of x/sys: it also makes the
	// runtime forget the limit of open files that commands would get back.
	if err := syscall.Setrlimit(l.resource, &r); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(l.text), err)
	}
	return nil
}

// inherited is the limit that commands get. Of open files, the Go runtime raises
// this process's own and gives commands the old one back, which only a child can
// tell: one that is stopped before its first instruction.
func inherited(resource int) (syscall.Rlimit, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(resource, &r); err != nil {
		return r, err
	}
	if resource != unix.RLIMIT_NOFILE || r.Cur != r.Max {
		return r, nil
	}
	// The tracer is a thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := os.StartProcess(self(), []string{"true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return r, nil // tracing is not allowed here
	}
	var child unix.Rlimit
	err = unix.Prlimit(p.Pid, resource, nil, &child)
	p.Kill()
	p.Wait()
	if err == nil {
		r = syscall.Rlimit{Cur: child.Cur, Max: child.Max}
	}
	return r, nil
}
