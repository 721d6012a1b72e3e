package guest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
)

func withStdin(req *proto.Exec) *proto.Exec {
	req.Stdin = true
	return req
}

func TestStdin(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	big := bytes.Repeat([]byte("0123456789abcde\n"), 200_000) // 3.2 MB
	p := start(t, a, withStdin(&proto.Exec{Argv: []string{"cat"}}))
	go func() {
		for i, n := 0, 0; i < len(big); i += n { // pieces of any size
			n = min(1+i*7%100_000, len(big)-i)
			if _, err := p.Stdin().Write(big[i : i+n]); err != nil {
				t.Error(err)
			}
		}
		p.Stdin().Close()
	}()
	r, err := collect(p)
	if err != nil || r.Stdout != string(big) || r.Exit != (proto.Exited{}) {
		t.Errorf("%d bytes of %d came back, %+v, %v", len(r.Stdout), len(big), r.Exit, err)
	}
}

// A command that reads all before it prints needs nobody in Next meanwhile.
func TestStdinWithoutNext(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	p := start(t, a, withStdin(sh("echo first; wc -c")))
	const size = 5 << 20
	p.until(t, "first\n")
	if n, err := p.Stdin().ReadFrom(io.LimitReader(zero{}, size)); n != size || err != nil {
		t.Fatal(n, err)
	}
	if err := p.Stdin().Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Stdin().Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	r, err := collect(p)
	if diff := cmp.Diff(result{Stdout: "5242880\n"}, r); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A command that does not read its stdin still gets signals.
func TestStdinUnread(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	p := start(t, a, withStdin(sh(`trap 'echo got; exit 7' USR1; sleep 1000 & echo ready; wait`)))
	p.until(t, "ready\n")
	wrote := make(chan error)
	go func() {
		_, err := p.Stdin().ReadFrom(zero{}) // without end
		wrote <- err
	}()
	// Until the window is used up, which nothing but the state tells.
	for full := false; !full; time.Sleep(time.Millisecond) {
		select {
		case err := <-wrote:
			t.Fatal(err)
		default:
			full = p.Credit() == 0
		}
	}
	if err := p.Signal(int(unix.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	r, err := collect(p)
	r.StdinErrno = 0 // the agent may see the pipe break before the exit
	if diff := cmp.Diff(result{Stdout: "got\n", Exit: proto.Exited{Code: 7}}, r); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := <-wrote; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the writer: %v", err)
	}
}

// A command that closes its stdin goes on, and the writer is told.
func TestStdinClosedByCommand(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	p := start(t, a, withStdin(sh("exec 0<&-; echo closed; sleep 0.3; echo still here")))
	p.until(t, "closed\n")
	wrote := make(chan error, 1)
	go func() {
		_, err := p.Stdin().ReadFrom(zero{})
		wrote <- err
	}()
	r, err := collect(p)
	if diff := cmp.Diff(result{Stdout: "still here\n", StdinErrno: uint32(unix.EPIPE)}, r); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := <-wrote; !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the writer: %v", err)
	}
}

func TestNoStdin(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	p := start(t, a, sh("cat"))
	if _, err := p.Stdin().Write([]byte("x")); !errors.Is(err, client.ErrNoStdin) {
		t.Error(err)
	}
	if r, err := collect(p); err != nil || r != (result{}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// The exit comes with all that the leader wrote, and does not wait for others
// who hold the pipe; those live on, even when they print.
func TestBackground(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	for _, tt := range []struct {
		name, script string
		want         string // stdout without the first line, "…": anything
	}{
		{"silent", "sleep 1000 & echo $!; head -c 3000000 /dev/zero | tr '\\0' x; exit 3", strings.Repeat("x", 3000000)},
		{"printing", "(while sleep 0.01; do echo x || exit; done) & echo $!; exit 3", "…"},
		{"printing without end", "yes & echo $!; exit 3", "…"},
		{"on stderr", "sleep 1000 >/dev/null & echo $!; exit 3", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Now()
			p := start(t, a, sh(tt.script))
			r, err := collect(p)
			took := time.Since(begin)
			if err != nil || r.Exit != (proto.Exited{Code: 3}) {
				t.Fatal(r.Exit, err)
			}
			if took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			line := ""
			for l := range strings.Lines(r.Stdout) {
				if l != "y\n" && l != "x\n" {
					line = l
					break
				}
			}
			pid := number(t, line)
			if got := strings.TrimPrefix(r.Stdout, line); tt.want != "…" && got != tt.want {
				t.Errorf("%d bytes of output, want %d", len(got), len(tt.want))
			}
			time.Sleep(50 * time.Millisecond) // some more output that goes nowhere
			if err := unix.Kill(pid, 0); err != nil {
				t.Errorf("the background process: %v", err)
			}
			unix.Kill(-p.PID(), unix.SIGKILL)
			gone(t, pid)
		})
	}
}

// In "a | b" whose shell does not wait, the grace catches the last words.
func TestGrace(t *testing.T) {
	s := newServer(t, Defaults{})
	s.grace = 20 * time.Second // it ends with the last writer, not by time
	a := newAgent(t, s)
	r := run(t, a, sh("(sleep 0.01; echo late) & echo early"))
	if diff := cmp.Diff(result{Stdout: "early\nlate\n"}, r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTTY(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	tty := func(script string) *proto.Exec {
		return &proto.Exec{Argv: []string{"sh", "-c", script}, TTY: true, Term: "xterm-256color"}
	}
	t.Run("basics", func(t *testing.T) {
		r := run(t, a, tty("tty >/dev/null && stty size; echo $TERM; echo err >&2; exit 4"))
		want := result{Stdout: "24 80\r\nxterm-256color\r\nerr\r\n", Exit: proto.Exited{Code: 4}}
		if diff := cmp.Diff(want, r); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("user", func(t *testing.T) {
		req := tty("echo $TERM >$(tty); exec 3<>/dev/tty; echo tty >&3; id -u")
		req.User, req.Env = "4321", []string{"TERM=dumb"}
		if diff := cmp.Diff(result{Stdout: "dumb\r\ntty\r\n4321\r\n"}, run(t, a, req)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("limited", func(t *testing.T) {
		req := tty("stty size; ulimit -n")
		req.Rows, req.Cols = 5, 6
		req.Rlimits = []proto.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 30, Hard: 30}}
		if diff := cmp.Diff(result{Stdout: "5 6\r\n30\r\n"}, run(t, a, req)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("resize", func(t *testing.T) {
		p := start(t, a, tty("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"))
		p.until(t, "ready")
		if err := p.Resize(40, 132); err != nil {
			t.Fatal(err)
		}
		p.until(t, "40 132")
	})
	t.Run("control-C", func(t *testing.T) {
		p := start(t, a, withStdin(&proto.Exec{Argv: []string{"cat"}, TTY: true}))
		io.WriteString(p.Stdin(), "x\n")
		p.until(t, "x\r\nx\r\n") // the terminal's echo, and then cat, which is there
		io.WriteString(p.Stdin(), "\x03")
		if r, err := collect(p); err != nil || r.Exit.Signal != uint8(unix.SIGINT) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("end of stdin", func(t *testing.T) {
		p := start(t, a, withStdin(tty("stty -echo; echo ready; cat")))
		p.until(t, "ready")
		io.WriteString(p.Stdin(), "line\n")
		p.Stdin().Close()
		if r, err := collect(p); err != nil || strings.TrimSpace(r.Stdout) != "line" {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("job control", func(t *testing.T) {
		// An interactive shell gives its command a group of its own, in the
		// foreground; the end of the connection must reach that one too.
		p := start(t, a, withStdin(&proto.Exec{Argv: []string{"sh", "-i"}, TTY: true}))
		io.WriteString(p.Stdin(), "sh -c 'trap \"\" HUP INT TERM; printf \"\\npid=%d\\n\" $$; while :; do sleep 1000; done'\n")
		p.until(t, "\npid=") // not the echo of the command
		pid := number(t, p.until(t, "\r"))
		if pgrp, _ := unix.Getpgid(pid); pgrp == p.PID() {
			t.Errorf("no group of its own")
		}
		p.Close()
		gone(t, p.PID())
		gone(t, pid)
	})
	t.Run("background", func(t *testing.T) {
		p := start(t, a, tty("trap '' HUP; sleep 1000 & echo $!; exit 3"))
		r, err := collect(p)
		if err != nil || r.Exit.Code != 3 {
			t.Fatal(r, err)
		}
		unix.Kill(number(t, r.Stdout), unix.SIGKILL)
	})
	t.Run("no terminal to resize", func(t *testing.T) {
		p := start(t, a, sh("sleep 1000"))
		p.Resize(1, 1)
		var fault *proto.Fault
		if _, err := collect(p); !errors.As(err, &fault) {
			t.Error(err)
		}
	})
}
