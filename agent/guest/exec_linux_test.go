package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
)

func TestExec(t *testing.T) {
	dir := openDir(t)
	a := newAgent(t, newServer(t, Defaults{Env: []string{"A=1", "B=1", "B=2", "C=1"}, Workdir: dir}))
	for _, tt := range []struct {
		name string
		req  *proto.Exec
		want result
	}{
		{"streams and status", sh("echo out; echo err >&2; exit 3"), result{Stdout: "out\n", Stderr: "err\n", Exit: proto.Exited{Code: 3}}},
		{"signal", sh("kill -9 $$"), result{Exit: proto.Exited{Signal: 9}}},
		{"no shell", &proto.Exec{Argv: []string{"echo", "$A; *"}}, result{Stdout: "$A; *\n"}},
		{"argv[0] is kept", &proto.Exec{Argv: []string{"sh", "-c", "echo $0 $1", "zero", "one"}}, result{Stdout: "zero one\n"}},
		{"binary", sh(`printf '\000\377\n\000'`), result{Stdout: "\x00\xff\n\x00"}},
		{"environment", &proto.Exec{Argv: []string{"/usr/bin/env"}, Env: []string{"C=3", "D=4=5", "HOME=/h"}},
			result{Stdout: "A=1\nB=2\nC=3\nD=4=5\nHOME=/h\nPATH=" + defaultPath + "\n"}},
		{"PATH of the environment", &proto.Exec{Argv: []string{"env"}, Env: []string{"PATH=/nowhere:/usr/bin", "A=", "B=", "C="}},
			result{Stdout: "A=\nB=\nC=\nPATH=/nowhere:/usr/bin\nHOME=/root\n"}},
		{"default directory", sh("pwd"), result{Stdout: dir + "\n"}},
		{"directory", &proto.Exec{Argv: []string{"pwd"}, Cwd: "/usr"}, result{Stdout: "/usr\n"}},
		{"relative command", &proto.Exec{Argv: []string{"bin/echo", "x"}, Cwd: "/usr"}, result{Stdout: "x\n"}},
		{"relative PATH", &proto.Exec{Argv: []string{"echo", "x"}, Cwd: "/usr", Env: []string{"PATH=bin"}}, result{Stdout: "x\n"}},
		{"user", &proto.Exec{Argv: []string{"sh", "-c", "id -u; id -g; id -G; echo $HOME"}, User: "4321:8765"}, result{Stdout: "4321\n8765\n8765\n/\n"}},
		{"user opens its streams", &proto.Exec{Argv: []string{"sh", "-c", "echo x >/dev/stdout; echo y >/dev/stderr"}, User: "4321"}, result{Stdout: "x\n", Stderr: "y\n"}},
		{"no stdin", &proto.Exec{Argv: []string{"sh", "-c", "readlink /proc/self/fd/0; cat"}}, result{Stdout: "/dev/null\n"}},
		{"only three descriptors", &proto.Exec{Argv: []string{"ls", "/proc/self/fd"}}, result{Stdout: "0\n1\n2\n3\n"}}, // 3 is the directory
		{"leader of its own session", sh("test $(ps -o sid= -p $$) = $$ && test $(ps -o pgid= -p $$) = $$ && echo yes"), result{Stdout: "yes\n"}},
		{"default signals", sh("grep '^SigIgn' /proc/self/status; grep -c '^SigBlk:.0*$' /proc/self/status"), result{Stdout: ignored(t) + "1\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, a, tt.req)
			if strings.HasPrefix(tt.name, "env") {
				got.Stdout = sorted(got.Stdout)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// ignored is the line of /proc with the signals that this process was started to
// ignore, which a command inherits; in a guest there are none.
func ignored(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "SigIgn") {
			return line
		}
	}
	t.Fatal("no SigIgn in /proc/self/status")
	return ""
}

// openDir returns a directory that every user may enter.
func openDir(t testing.TB) string {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sorted(lines string) string {
	l := strings.Split(strings.TrimSpace(lines), "\n")
	for i := range l {
		for j := range i {
			if l[i] < l[j] {
				l[i], l[j] = l[j], l[i]
			}
		}
	}
	return strings.Join(l, "\n") + "\n"
}

func TestStartErrors(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	dir := openDir(t)
	for path, mode := range map[string]os.FileMode{"plain": 0o644, "text": 0o755, "secret": 0o700} {
		if err := os.WriteFile(dir+"/"+path, []byte("no program\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(dir+"/orphan", []byte("#!/nonexistent/interpreter\n"), 0o755)
	os.Mkdir(dir+"/closed", 0o700)
	huge := strings.Repeat("x", 200<<10)
	for _, tt := range []struct {
		name string
		req  proto.Exec
		want proto.StartError // Message: a part of it
	}{
		{"no argv", proto.Exec{}, proto.StartError{Kind: proto.StartBadArgs, Stage: proto.StageRequest}},
		{"empty command", proto.Exec{Argv: []string{""}}, proto.StartError{Kind: proto.StartBadArgs, Stage: proto.StageRequest}},
		{"NUL", proto.Exec{Argv: []string{"a\x00b"}}, proto.StartError{Kind: proto.StartBadArgs, Stage: proto.StageRequest}},
		{"NUL in env", proto.Exec{Argv: []string{"a"}, Env: []string{"a\x00b"}}, proto.StartError{Kind: proto.StartBadArgs, Stage: proto.StageRequest}},
		{"too long an argument", proto.Exec{Argv: []string{"true", huge}}, proto.StartError{Kind: proto.StartBadArgs, Errno: uint32(unix.E2BIG), Stage: proto.StageExec}},
		{"not in PATH", proto.Exec{Argv: []string{"nope"}}, proto.StartError{Kind: proto.StartNotFound, Errno: 2, Stage: proto.StageLookup, Message: "nope"}},
		{"no such path", proto.Exec{Argv: []string{"/nope/nope"}}, proto.StartError{Kind: proto.StartNotFound, Errno: 2, Stage: proto.StageExec, Message: "/nope/nope"}},
		{"no such interpreter", proto.Exec{Argv: []string{dir + "/orphan"}}, proto.StartError{Kind: proto.StartNotFound, Errno: 2, Stage: proto.StageExec}},
		{"not executable", proto.Exec{Argv: []string{dir + "/plain"}}, proto.StartError{Kind: proto.StartPermissionDenied, Errno: 13, Stage: proto.StageExec}},
		{"not executable in PATH", proto.Exec{Argv: []string{"plain"}, Env: []string{"PATH=" + dir}}, proto.StartError{Kind: proto.StartPermissionDenied, Errno: 13, Stage: proto.StageLookup}},
		{"a directory", proto.Exec{Argv: []string{"/etc"}}, proto.StartError{Kind: proto.StartPermissionDenied, Errno: 13, Stage: proto.StageExec}},
		{"not for this user", proto.Exec{Argv: []string{dir + "/secret"}, User: "4321"}, proto.StartError{Kind: proto.StartPermissionDenied, Errno: 13, Stage: proto.StageExec}},
		{"not for this user in PATH", proto.Exec{Argv: []string{"secret"}, User: "4321", Env: []string{"PATH=" + dir}}, proto.StartError{Kind: proto.StartPermissionDenied, Errno: 13, Stage: proto.StageLookup}},
		{"no program", proto.Exec{Argv: []string{dir + "/text"}}, proto.StartError{Kind: proto.StartNotExecutable, Errno: uint32(unix.ENOEXEC), Stage: proto.StageExec}},
		{"cwd missing", proto.Exec{Argv: []string{"true"}, Cwd: "/nope"}, proto.StartError{Kind: proto.StartBadCwd, Errno: 2, Stage: proto.StageCwd, Message: "/nope"}},
		{"cwd missing and command too", proto.Exec{Argv: []string{"nope"}, Cwd: "/nope"}, proto.StartError{Kind: proto.StartBadCwd, Errno: 2, Stage: proto.StageCwd, Message: "/nope"}},
		{"cwd a file", proto.Exec{Argv: []string{"true"}, Cwd: "/etc/passwd"}, proto.StartError{Kind: proto.StartBadCwd, Errno: uint32(unix.ENOTDIR), Stage: proto.StageCwd}},
		{"cwd relative", proto.Exec{Argv: []string{"true"}, Cwd: "etc"}, proto.StartError{Kind: proto.StartBadCwd, Stage: proto.StageCwd}},
		{"cwd closed to the user", proto.Exec{Argv: []string{"true"}, Cwd: dir + "/closed", User: "4321"}, proto.StartError{Kind: proto.StartBadCwd, Errno: 13, Stage: proto.StageCwd}},
		{"unknown user", proto.Exec{Argv: []string{"true"}, User: "nope"}, proto.StartError{Kind: proto.StartUserSetup, Stage: proto.StageUser, Message: "nope"}},
		{"unknown group", proto.Exec{Argv: []string{"true"}, User: "root:nope"}, proto.StartError{Kind: proto.StartUserSetup, Stage: proto.StageUser, Message: "nope"}},
		{"unknown limit", proto.Exec{Argv: []string{"true"}, Rlimits: []proto.Rlimit{{Resource: 16}}}, proto.StartError{Kind: proto.StartResourceLimit, Stage: proto.StageRlimit, Message: "16"}},
		{"soft over hard", proto.Exec{Argv: []string{"true"}, Rlimits: []proto.Rlimit{{Resource: 7, Soft: 2, Hard: 1}}}, proto.StartError{Kind: proto.StartResourceLimit, Stage: proto.StageRlimit}},
		{"limit over the system's", proto.Exec{Argv: []string{"true"}, Rlimits: []proto.Rlimit{{Resource: 7, Soft: 1, Hard: 1 << 40}}}, proto.StartError{Kind: proto.StartResourceLimit, Errno: 1, Stage: proto.StageRlimit}},
		{"limited and no program", proto.Exec{Argv: []string{dir + "/text"}, Rlimits: []proto.Rlimit{{Resource: 7, Soft: 9, Hard: 9}}}, proto.StartError{Kind: proto.StartNotExecutable, Errno: 8, Stage: proto.StageExec}},
		{"limited in a closed cwd", proto.Exec{Argv: []string{"true"}, Cwd: dir + "/closed", User: "4321", Rlimits: []proto.Rlimit{{Resource: 7, Soft: 9, Hard: 9}}}, proto.StartError{Kind: proto.StartBadCwd, Errno: 13, Stage: proto.StageCwd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.Exec(t.Context(), &tt.req)
			var got *proto.StartError
			if !errors.As(err, &got) {
				t.Fatal(err)
			}
			if !strings.Contains(got.Message, tt.want.Message) {
				t.Errorf("%q does not name %q", got.Message, tt.want.Message)
			}
			tt.want.Message = got.Message
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestRlimits(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{Rlimits: []proto.Rlimit{
		{Resource: unix.RLIMIT_NOFILE, Soft: 50, Hard: 60}, {Resource: unix.RLIMIT_CORE, Soft: 1 << 20, Hard: 1 << 20}}}))
	req := sh("ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -v; sh -c 'ulimit -n'; id -u; pwd; cat")
	req.User, req.Cwd, req.Stdin = "4321", "/tmp", true
	req.Rlimits = []proto.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 40, Hard: 45}, {Resource: unix.RLIMIT_AS, Soft: 64 << 20, Hard: proto.RlimitInfinity}}
	p, err := a.Exec(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(p.Stdin(), "stdin")
	p.Stdin().Close()
	got, err := collect(p)
	want := result{Stdout: "40\n45\n2048\n65536\n40\n4321\n/tmp\nstdin"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// What the environment may hold is the kernel's business only, also for a
// limiter that has little memory left.
func TestLargeEnvironment(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	req := &proto.Exec{Argv: []string{"wc", "-c", "/proc/self/environ"}}
	for i := range 15 {
		req.Env = append(req.Env, fmt.Sprintf("V%02d=%s", i, strings.Repeat("x", 100<<10)))
	}
	n := 0
	fmt.Sscan(run(t, a, req).Stdout, &n)
	if n < 15*100<<10 {
		t.Errorf("%d bytes of environment", n)
	}
	req.Rlimits = []proto.Rlimit{{Resource: unix.RLIMIT_DATA, Soft: smallData, Hard: smallData}}
	limited := 0
	fmt.Sscan(run(t, a, req).Stdout, &limited)
	if limited != n {
		t.Errorf("%d bytes of environment with limits", limited)
	}
}

func TestManyAtOnce(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			p, err := a.Exec(t.Context(), sh(fmt.Sprintf("head -c 100000 /dev/zero | tr '\\0' x; exit %d", i)))
			if err != nil {
				t.Error(err)
				return
			}
			r, err := collect(p)
			if err != nil || len(r.Stdout) != 100000 || r.Exit != (proto.Exited{Code: uint8(i)}) {
				t.Errorf("%d: %d bytes, %+v, %v", i, len(r.Stdout), r.Exit, err)
			}
		})
	}
	wg.Wait()
}

func TestSignals(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	p := start(t, a, sh(`trap 'echo got; exit 7' USR1; sleep 1000 & echo ready; wait`))
	p.until(t, "ready\n")
	if err := p.Signal(int(unix.SIGUSR1)); err != nil {
		t.Fatal(err)
	}
	// The whole group gets it, so the sleep ends as well and nothing holds stdout.
	r, err := collect(p)
	if diff := cmp.Diff(result{Stdout: "got\n", Exit: proto.Exited{Code: 7}}, r); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill after the exit: %v", err)
	}
	if err := p.Signal(65); err == nil {
		t.Error("signal 65 was taken")
	}
}

// A context that ends, a Close and a connection that breaks all kill the group.
func TestEndKillsGroup(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	for name, end := range map[string]func(context.CancelFunc, *client.Process){
		"cancel": func(cancel context.CancelFunc, p *client.Process) { cancel() },
		"close":  func(cancel context.CancelFunc, p *client.Process) { p.Close() },
		"kill":   func(cancel context.CancelFunc, p *client.Process) { p.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p, err := a.Exec(ctx, sh("sleep 1000 & echo $!; trap '' TERM HUP INT; wait"))
			if err != nil {
				t.Fatal(err)
			}
			ev, err := p.Next()
			if err != nil {
				t.Fatal(err)
			}
			background := number(t, string(ev.Data))
			end(cancel, p)
			r, err := collect(p)
			switch name {
			case "cancel":
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			case "close":
				if !errors.Is(err, client.ErrClosed) {
					t.Error(err)
				}
			case "kill":
				if err != nil || r.Exit.Signal != 9 {
					t.Error(r, err)
				}
			}
			gone(t, p.PID())
			gone(t, background)
		})
	}
}

func TestCancelWhileStarting(t *testing.T) {
	a := newAgent(t, newServer(t, Defaults{}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Exec(ctx, sh("true")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRefusedWhenStopping(t *testing.T) {
	s := newServer(t, Defaults{})
	a := newAgent(t, s)
	s.stop()
	var got *proto.StartError
	if _, err := a.Exec(t.Context(), sh("true")); !errors.As(err, &got) || got.Kind != proto.StartOther {
		t.Error(err)
	}
}

// Output that nobody takes stops the command, not the memory.
func TestSlowReader(t *testing.T) {
	const size = 200 << 20
	a := newAgent(t, newServer(t, Defaults{}))
	p, err := a.Exec(t.Context(), sh(fmt.Sprintf("head -c %d /dev/zero", size)))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // long enough to fill everything on the way
	var m runtime.MemStats
	peak, got := uint64(0), 0
	for frame := 0; ; frame++ {
		ev, err := p.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got += len(ev.Data)
		if frame%64 == 0 {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	}
	if got != size || peak > 32<<20 {
		t.Errorf("%d bytes came, with %d bytes of heap", got, peak)
	}
}
