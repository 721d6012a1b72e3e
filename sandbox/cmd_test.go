package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/hutchvm/hutch/sandbox"
)

func TestCmd(t *testing.T) {
	sb := guest(t)
	var stdout, stderr bytes.Buffer
	cmd := sb.Command(t.Context(), "sh", "-c", "cat; echo $X in $PWD >&2; exit 3")
	cmd.Stdin = strings.NewReader("input")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env, cmd.Dir = []string{"X=first", "X=last"}, "/tmp"
	err := cmd.Run()
	var ee *sandbox.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 3 {
		t.Errorf("error is %v", err)
	}
	if stdout.String() != "input" || stderr.String() != "last in /tmp\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	if cmd.ProcessState.ExitCode() != 3 || cmd.ProcessState.Pid() != cmd.Process.Pid {
		t.Errorf("state %v, pid %d", cmd.ProcessState, cmd.Process.Pid)
	}
	if err := cmd.Start(); err == nil {
		t.Error("a command can be started twice")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a command can be waited for twice")
	}
}

func TestCmdOutput(t *testing.T) {
	sb := guest(t)
	out, err := sb.Command(t.Context(), "echo", "hello").Output()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = sb.Command(t.Context(), "sh", "-c", "echo why >&2; exit 1").Output()
	var ee *sandbox.ExitError
	if !errors.As(err, &ee) || string(ee.Stderr) != "why\n" {
		t.Errorf("error is %v", err)
	}
	out, err = sb.Command(t.Context(), "sh", "-c", "echo out; echo err >&2").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("out\n")) || !bytes.Contains(out, []byte("err\n")) {
		t.Errorf("%q, %v", out, err)
	}
	if err := sb.Command(t.Context(), "no-such-command").Run(); err == nil || errors.As(err, &ee) {
		t.Errorf("a missing command: %v", err)
	}
}

func TestCmdPipes(t *testing.T) {
	sb := guest(t)
	cmd := sb.Command(t.Context(), "sh", "-c", "while read x; do echo got $x; echo $x >&2; done")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdoutPipe(); err == nil {
		t.Error("two pipes for one stdout")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := fmt.Fprintf(stdin, "%d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	// One after the other: each pipe holds what is not read yet.
	errOut, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(stdout)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if string(out) != "got 0\ngot 1\ngot 2\n" || string(errOut) != "0\n1\n2\n" {
		t.Errorf("stdout %q, stderr %q", out, errOut)
	}
}

func TestCmdSignal(t *testing.T) {
	sb := guest(t)
	cmd := sb.Command(t.Context(), "sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var ee *sandbox.ExitError
	if err := cmd.Wait(); !errors.As(err, &ee) || ee.ProcessState.Signal() != syscall.SIGTERM {
		t.Errorf("error is %v", err)
	}
}

// failing is a writer that takes nothing.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full, say") }

func TestCmdFailingWriter(t *testing.T) {
	sb := guest(t)
	cmd := sb.Command(t.Context(), "echo", "hello")
	cmd.Stdout = failing{}
	if err := cmd.Run(); err == nil || !strings.Contains(err.Error(), "disk full, say") {
		t.Errorf("error is %v", err)
	}
	cmd = sb.Command(t.Context(), "cat")
	cmd.Stdin = io.MultiReader(strings.NewReader("x"), errReader{})
	if err := cmd.Run(); err == nil || !strings.Contains(err.Error(), "cannot read, say") {
		t.Errorf("error is %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("cannot read, say") }
