package guest

import (
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
)

// TestMain lets the test binary be the limiter, and makes it the parent of
// orphans, as process 1 is.
func TestMain(m *testing.M) {
	if os.Args[0] == limiterName {
		Main(os.Args, "test")
		os.Exit(1)
	}
	if os.Args[0] == initName {
		testInit()
	}
	for fd := 3; fd < 1024; fd++ { // what the test's own parent left open
		unix.CloseOnExec(fd)
	}
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	goleak.VerifyTestMain(m)
}

// socketpair returns two ends of a connection that buffers, as vsock does.
func socketpair(t testing.TB) (net.Conn, net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}

// newAgent returns a host's Agent whose operations go to s.
func newAgent(t testing.TB, s *Server) *client.Agent {
	host, guest := socketpair(t)
	frame, err := proto.AppendFrame(proto.AppendHandshake(nil), &proto.Hello{Build: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Write(frame); err != nil {
		t.Fatal(err)
	}
	a, err := client.New(t.Context(), host, func(context.Context) (net.Conn, error) {
		h, g := socketpair(t)
		go s.Handle(g)
		return h, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); guest.Close() })
	return a
}

func newServer(t testing.TB, d Defaults) *Server {
	s := NewServer(d)
	t.Cleanup(s.Close)
	return s
}

// result is all that a command did.
type result struct {
	Stdout, Stderr string
	Exit           proto.Exited
	StdinErrno     uint32
}

func collect(p interface{ Next() (client.Event, error) }) (r result, err error) {
	for {
		ev, err := p.Next()
		if err == io.EOF {
			return r, nil
		}
		if err != nil {
			return r, err
		}
		switch ev.Kind {
		case client.EventStdout:
			r.Stdout += string(ev.Data)
		case client.EventStderr:
			r.Stderr += string(ev.Data)
		case client.EventStdinError:
			r.StdinErrno = ev.Errno
		case client.EventExited:
			r.Exit = ev.Exit
			// These differ from run to run.
			r.Exit.UserTime, r.Exit.SystemTime, r.Exit.MaxRSS = 0, 0, 0
		}
	}
}

func run(t testing.TB, a *client.Agent, req *proto.Exec) result {
	t.Helper()
	p, err := a.Exec(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	r, err := collect(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sh(script string) *proto.Exec { return &proto.Exec{Argv: []string{"sh", "-c", script}} }

// talk collects a command's output piece by piece.
type talk struct {
	*client.Process
	heard string
}

// until waits for a piece of output and returns what came before it.
func (c *talk) until(t testing.TB, want string) string {
	t.Helper()
	for {
		if before, after, ok := strings.Cut(c.heard, want); ok {
			c.heard = after
			return before
		}
		ev, err := c.Next()
		if err != nil || ev.Kind == client.EventExited {
			t.Fatalf("waiting for %q after %q: %+v, %v", want, c.heard, ev.Exit, err)
		}
		c.heard += string(ev.Data)
	}
}

// start starts a command that is killed at the end of the test.
func start(t testing.TB, a *client.Agent, req *proto.Exec) *talk {
	t.Helper()
	p, err := a.Exec(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		unix.Kill(-p.PID(), unix.SIGKILL) // background processes, if any
	})
	return &talk{Process: p}
}

// gone waits until a process is not there any more, not even as a zombie.
func gone(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); unix.Kill(pid, 0) != unix.ESRCH; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			unix.Kill(pid, unix.SIGKILL)
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
