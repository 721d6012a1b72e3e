package guest

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// Children that outlive their parents come to the agent and are reaped by it.
func TestOrphansAreReaped(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	// The subshell ends at once, so its child is an orphan.
	r := run(t, a, sh(`(sh -c 'exec >/dev/null 2>&1; sleep 0.05; exit 5' & echo $!)`))
	gone(t, number(t, r.Stdout))
}

// A thousand short commands with as many orphans, and no exit gets lost or mixed up.
func TestReapingUnderLoad(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	done := make(chan struct{})
	for w := range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 25 {
				code := uint8(w*25 + i)
				p, err := a.Exec(t.Context(), &proto.Exec{Argv: []string{"sh", "-c", "(true & true &); exit $0", string(rune('0'+code/100)) + string(rune('0'+code/10%10)) + string(rune('0'+code%10))}})
				if err != nil {
					t.Error(err)
					return
				}
				if r, err := collect(p); err != nil || r.Exit.Code != code {
					t.Errorf("exit %d: %+v, %v", code, r, err)
				}
			}
		}()
	}
	for range 4 {
		<-done
	}
}

// initName makes the test binary process 1 of a namespace of its own, where
// everything may be killed.
const initName = "hutch-test-init"

// testInit starts some commands, one that ignores SIGTERM among them when asked
// to, ends everything and prints what happened.
func testInit() {
	s := NewServer(Defaults{})
	s.start(&execution{server: s}, sh("sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; wait"))
	s.start(&execution{server: s}, sh("exec sleep 1000"))
	grace := 20 * time.Second
	if os.Args[1] == "stubborn" {
		grace = 300 * time.Millisecond
		s.start(&execution{server: s}, sh("trap '' TERM; while :; do sleep 1000; done"))
	}
	time.Sleep(100 * time.Millisecond) // the shells set their traps
	if s.reaper.endAll(grace) {
		os.Stdout.WriteString("killed ")
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(-1, &status, 0, nil); err == unix.ECHILD {
		os.Stdout.WriteString("none left")
	}
	os.Exit(0)
}

func TestEndAll(t *testing.T) {
	for arg, want := range map[string]string{"willing": "none left", "stubborn": "killed none left"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		pid, err := syscall.ForkExec("/proc/self/exe", []string{initName, arg}, &syscall.ProcAttr{
			Env:   os.Environ(),
			Files: []uintptr{0, w.Fd(), 2},
			Sys:   &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID},
		})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(r)
		r.Close()
		unix.Wait4(pid, nil, 0, nil)
		if diff := cmp.Diff(want, strings.TrimSpace(string(got))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", arg, diff)
		}
	}
}
