// Command timeout runs a command and ends it when it takes too long.
//
//	timeout [-s signal] [-k duration] duration command [argument...]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/signame"
)

func main() {
	args, sig, grace := os.Args[1:], unix.SIGTERM, time.Duration(0)
	for len(args) > 1 && len(args[0]) > 1 && args[0][0] == '-' {
		option, value := args[0], ""
		args = args[1:]
		if option == "--" {
			break
		}
		if option == "--foreground" || option == "--preserve-status" {
			continue
		}
		if name, text, ok := strings.Cut(option, "="); ok {
			option, value = map[string]string{"--signal": "-s", "--kill-after": "-k"}[name], text
		} else if len(option) > 2 && option[1] != '-' {
			option, value = option[:2], option[2:]
		} else {
			value, args = args[0], args[1:]
		}
		switch option {
		case "-s":
			n, ok := signame.Parse(value)
			if sig = n; !ok || n == 0 {
				fail(125, "%s: unknown signal", value)
			}
		case "-k":
			grace = duration(value)
		default:
			fail(125, "usage: timeout [-s signal] [-k duration] duration command [argument...]")
		}
	}
	if len(args) < 2 {
		fail(125, "usage: timeout [-s signal] [-k duration] duration command [argument...]")
	}
	os.Exit(run(duration(args[0]), grace, sig, args[1:]))
}

func run(limit, grace time.Duration, sig unix.Signal, args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "timeout: %v\n", err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return 127
		}
		return 126
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var alarm <-chan time.Time
	if limit > 0 {
		alarm = time.After(limit)
	}
	timedOut := false
	for {
		select {
		case s := <-signals:
			cmd.Process.Signal(s)
		case <-alarm:
			alarm = nil
			if timedOut {
				cmd.Process.Kill()
				continue
			}
			timedOut = true
			cmd.Process.Signal(sig)
			if grace > 0 {
				alarm = time.After(grace)
			}
		case <-done:
			ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			switch {
			case ws.Signaled() && ws.Signal() == syscall.SIGKILL:
				return 137
			case timedOut:
				return 124
			case ws.Signaled():
				return 128 + int(ws.Signal())
			}
			return ws.ExitStatus()
		}
	}
}

func fail(status int, format string, args ...any) {
	fmt.Fprintf(os.Stderr, "timeout: "+format+"\n", args...)
	os.Exit(status)
}

// duration understands 1.5, 2s, 3m, 4h and 5d.
func duration(s string) time.Duration {
	unit := time.Second
	if n := len(s); n > 1 {
		if u := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[s[n-1]]; u != 0 {
			unit, s = u, s[:n-1]
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 {
		fail(125, "%s: not a duration", s)
	}
	return time.Duration(v * float64(unit))
}
