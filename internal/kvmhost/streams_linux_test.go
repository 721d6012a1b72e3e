package kvmhost

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// noise is an endless stream that is the same every time.
func noise(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
}

// TestStreams carries more than any buffer holds through all three streams.
func TestStreams(t *testing.T) {
	const size = 64 << 20
	exe := program(t)
	ignore := goleak.IgnoreCurrent()
	want := sha256.New()
	io.Copy(want, noise(size))
	got := sha256.New()
	var errs bytes.Buffer
	r, err := Run(context.Background(), Config{
		Args:  []string{"sh", "-c", "head -c 1000000 /dev/zero >&2; cat; echo end >&2; exit 3"},
		Stdin: noise(size), Stdout: got, Stderr: &errs, Init: exe,
	})
	if err != nil || r.Code != 3 {
		t.Fatalf("exit code %d, %v; want 3", r.Code, err)
	}
	if g, w := fmt.Sprintf("%x", got.Sum(nil)), fmt.Sprintf("%x", want.Sum(nil)); g != w {
		t.Errorf("output has hash %s, want the input's, %s", g, w)
	}
	if e := errs.Bytes(); len(e) != 1_000_004 || !bytes.HasSuffix(e, []byte("\x00end\n")) {
		t.Errorf("stderr has %d bytes, want 1000004 that end in end", len(e))
	}
	goleak.VerifyNone(t, ignore)
}

// TestEnds covers the ways in which a command ends: each line of the table is
// one host.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		args   []string
		code   int
		out    string
		errs   string // must be contained
	}{
		"killed by a signal": {`echo x; kill -KILL $$`, nil, 137, "x\n", ""},
		"left behind":        {`sleep 1000 & (sleep 1000 & ) ; echo x`, nil, 0, "x\n", ""},
		"one pipe for both":  {`exec 2>&1; for i in 1 2 3; do echo o$i; echo e$i >&2; done`, nil, 0, "o1\ne1\no2\ne2\no3\ne3\n", ""},
		"time limit":         {`echo x; sleep 1000`, []string{"-timeout", "8s"}, CodeTimeout, "x\n", "time limit reached (8s)"},
		"panic":              {`echo c > /proc/sysrq-trigger; sleep 100`, nil, CodeHost, "", "sysrq triggered crash"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := finish(t, command(t, append(c.args, "--", "sh", "-c", c.script)...))
			if code != c.code || out != c.out || !strings.Contains(errs, c.errs) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d, %q, …%q…", code, out, errs, c.code, c.out, c.errs)
			}
		})
	}
}

// started runs a command that prints "ready" and waits for that.
func started(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("first line %q, %v", line, err)
	}
	return r
}

func TestSignal(t *testing.T) {
	t.Parallel()
	cmd := command(t, "--", "sh", "-c", `trap "echo got; exit 9" TERM; echo ready; while :; do sleep 0.1; done`)
	out := started(t, cmd)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(out); string(rest) != "got\n" {
		t.Errorf("after the signal: %q", rest)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

// emulatorOf finds the QEMU that a process started.
func emulatorOf(t *testing.T, pid int) int {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		text, _ := os.ReadFile(f)
		for child := range strings.FieldsSeq(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				return n
			}
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// TestSilence stops the emulator behind the program's back.
func TestSilence(t *testing.T) {
	t.Parallel()
	cmd := command(t, "-hang", "3s", "--", "sh", "-c", "echo ready; sleep 1000")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	started(t, cmd)
	if err := unix.Kill(emulatorOf(t, cmd.Process.Pid), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != CodeHost || !strings.Contains(errs.String(), ErrStopped.Error()) {
		t.Errorf("exit code %d, stderr %q; want %d", code, errs.String(), CodeHost)
	}
}

// TestOrphan shows that the emulator does not outlive a killed program.
func TestOrphan(t *testing.T) {
	t.Parallel()
	cmd := command(t, "--", "sh", "-c", "echo ready; sleep 1000")
	started(t, cmd)
	pid := emulatorOf(t, cmd.Process.Pid)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.Process.Kill()
	cmd.Wait()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 30_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			t.Errorf("QEMU still runs: %v", err)
		}
		return
	}
}

// TestTerminal runs a command on a terminal: its size, its line editing, its
// interrupt key and a change of its size.
func TestTerminal(t *testing.T) {
	t.Parallel()
	cmd := command(t, "--", "sh", "-c", `stty size; trap 'stty size' WINCH; read a; echo "<$a>"; read b; cat`)
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 44})
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	t.Cleanup(func() { cmd.Process.Kill() })
	master.SetReadDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(master)
	expect := func(want string) {
		t.Helper()
		for {
			line, err := r.ReadString('\n')
			if strings.TrimRight(line, "\r\n") == want {
				return
			}
			if err != nil {
				t.Fatalf("waiting for %q: %v, last %q", want, err, line)
			}
		}
	}
	expect("33 44")
	io.WriteString(master, "one\n")
	expect("<one>")
	if err := pty.Setsize(master, &pty.Winsize{Rows: 20, Cols: 30}); err != nil {
		t.Fatal(err)
	}
	expect("20 30")
	io.WriteString(master, "two\nthree\n")
	expect("three") // the terminal's echo or cat's own
	io.WriteString(master, "\x03")
	io.Copy(io.Discard, r) // ends with EIO
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != CodeSignalBase+int(syscall.SIGINT) {
		t.Errorf("exit code %d after the interrupt key", code)
	}
}
