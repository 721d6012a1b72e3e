package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hutchvm/hutch/internal/kvmtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hutch": main})
}

// TestScripts runs the scripts of testdata/script.
func TestScripts(t *testing.T) {
	kvmtest.RequireLinux(t)
	home := t.TempDir()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HUTCH_HOME", home)
			return nil
		},
	})
}

// screen collects what a terminal shows.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the terminal does not show %q but\n%s", text, s.String())
		}
	}
}

// TestTerminal drives "hutch run -t" through a pseudo-terminal as a person would.
func TestTerminal(t *testing.T) {
	kvmtest.RequireLinux(t)
	start := func(args ...string) (*exec.Cmd, *os.File, *screen) {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, args...)
		cmd.Args[0] = "hutch" // by this name the test binary is the command
		cmd.Env = append(os.Environ(), "HUTCH_HOME="+t.TempDir(), "TERM=vt100")
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 100})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); tty.Close() })
		s := &screen{}
		go io.Copy(s, tty)
		return cmd, tty, s
	}

	cmd, tty, s := start("run", "-t", "--", "sh", "-c", "stty size; echo $TERM; read x; stty size; echo got $x; exit 5")
	s.waitFor(t, "30 100")
	s.waitFor(t, "vt100")
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 41, Cols: 111}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // the new size travels
	io.WriteString(tty, "typed\r")
	s.waitFor(t, "41 111")
	s.waitFor(t, "got typed")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("exit code %d (%v), want 5", cmd.ProcessState.ExitCode(), err)
	}

	cmd, tty, s = start("run", "-t", "--", "sh", "-c", "echo ready; sleep 3600")
	s.waitFor(t, "ready")
	io.WriteString(tty, "\x1d") // ctrl-]
	if err := cmd.Wait(); err != nil {
		t.Errorf("leaving by ctrl-]: %v", err)
	}

	cmd, tty, s = start("run", "-t", "--", "sh", "-c", "echo ready; sleep 3600")
	s.waitFor(t, "ready")
	io.WriteString(tty, "\x03") // ctrl-C
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("exit code after ctrl-C is %d, want 130", cmd.ProcessState.ExitCode())
	}
}

// TestInterrupt: ctrl-C during boot, and to a command without a terminal, ends
// hutch as the signal would.
func TestInterrupt(t *testing.T) {
	kvmtest.RequireLinux(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	run := func(after func(*exec.Cmd, *screen), args ...string) int {
		cmd := exec.Command(exe, args...)
		cmd.Args[0] = "hutch"
		cmd.Env = append(os.Environ(), "HUTCH_HOME="+home)
		s := &screen{}
		cmd.Stdout, cmd.Stderr = s, s
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after(cmd, s)
		cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
	boot := func(cmd *exec.Cmd, _ *screen) { time.Sleep(300 * time.Millisecond); cmd.Process.Signal(os.Interrupt) }
	if code := run(boot, "run", "--", "sleep", "3600"); code != 130 {
		t.Errorf("exit code of an interrupted boot is %d", code)
	}
	ready := func(cmd *exec.Cmd, s *screen) { s.waitFor(t, "ready"); cmd.Process.Signal(os.Interrupt) }
	if code := run(ready, "run", "--", "sh", "-c", "echo ready; sleep 3600"); code != 130 {
		t.Errorf("exit code of an interrupted command is %d", code)
	}
	if left, _ := os.ReadDir(home + "/sandboxes"); len(left) > 0 {
		t.Errorf("records left: %v", left)
	}
}
