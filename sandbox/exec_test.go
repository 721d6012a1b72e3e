package sandbox_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/sandbox"
)

func TestExec(t *testing.T) {
	sb := guest(t)
	out, err := sb.Exec(t.Context(), "sh", []string{"-c", "echo out; echo err >&2; exit 7"})
	if err != nil {
		t.Fatal(err)
	}
	if out.Stdout() != "out\n" || out.Stderr() != "err\n" || out.ExitCode() != 7 || out.Success() {
		t.Errorf("stdout %q, stderr %q, %v", out.Stdout(), out.Stderr(), out.State())
	}
	if got := shell(t, sb, "uname -sr"); !strings.HasPrefix(got, "Linux 6.1.") {
		t.Errorf("uname says %q", got)
	}
	// Arguments reach the command as they are: no shell in between.
	out, err = sb.Exec(t.Context(), "echo", []string{"$HOME;", "a  b", "*"})
	if err != nil || out.Stdout() != "$HOME; a  b *\n" {
		t.Errorf("%q, %v", out.Stdout(), err)
	}
}

func TestExecSignal(t *testing.T) {
	sb := guest(t)
	out, err := sb.Shell(t.Context(), "kill -9 $$")
	if err != nil {
		t.Fatal(err)
	}
	if out.ExitCode() != -1 || out.State().Signal() != syscall.SIGKILL || out.State().Exited() {
		t.Errorf("state is %v", out.State())
	}
}

func TestExecCannotStart(t *testing.T) {
	sb := guest(t)
	shell(t, sb, "echo text > /root/noexec; echo junk > /root/junk; chmod 755 /root/junk")
	for _, tt := range []struct {
		name string
		argv []string
		opts []sandbox.ExecOption
		want sandbox.ExecErrorKind
		is   error
	}{
		{"missing", []string{"no-such-command"}, nil, sandbox.ExecNotFound, fs.ErrNotExist},
		{"missing path", []string{"/no/such/command"}, nil, sandbox.ExecNotFound, fs.ErrNotExist},
		{"no x bit", []string{"/root/noexec"}, nil, sandbox.ExecPermissionDenied, fs.ErrPermission},
		{"directory", []string{"/root"}, nil, sandbox.ExecPermissionDenied, nil},
		{"not a program", []string{"/root/junk"}, nil, sandbox.ExecNotExecutable, syscall.ENOEXEC},
		{"no cwd", []string{"true"}, []sandbox.ExecOption{sandbox.WithExecCwd("/missing")}, sandbox.ExecBadCwd, nil},
		{"cwd is a file", []string{"true"}, []sandbox.ExecOption{sandbox.WithExecCwd("/etc/passwd")}, sandbox.ExecBadCwd, nil},
		{"no user", []string{"true"}, []sandbox.ExecOption{sandbox.WithExecUser("nobodyhere")}, sandbox.ExecUserSetup, nil},
		{"no group", []string{"true"}, []sandbox.ExecOption{sandbox.WithExecUser("root:nogrouphere")}, sandbox.ExecUserSetup, nil},
		{"too many arguments", []string{"true", strings.Repeat("x", 200<<10)}, nil, sandbox.ExecBadArgs, syscall.E2BIG},
	} {
		_, err := sb.Exec(t.Context(), tt.argv[0], tt.argv[1:], tt.opts...)
		var ee *sandbox.ExecError
		if !errors.As(err, &ee) || ee.Kind != tt.want {
			t.Errorf("%s: error is %v (%+v), want %v", tt.name, err, ee, tt.want)
		}
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v does not match %v", tt.name, err, tt.is)
		}
	}
}

func TestExecBadOptions(t *testing.T) {
	sb := guest(t)
	for field, opt := range map[string]sandbox.ExecOption{
		"WithExecCwd":         sandbox.WithExecCwd("relative"),
		"WithExecUser":        sandbox.WithExecUser("a:b:c"),
		"WithExecTimeout":     sandbox.WithExecTimeout(-1),
		"WithExecEnv":         sandbox.WithExecEnv(map[string]string{"HUTCH_X": "secret-value"}),
		"WithExecRlimits":     sandbox.WithExecRlimits(map[sandbox.Resource]sandbox.Rlimit{"nosuch": {}}),
		"WithExecOutputLimit": sandbox.WithExecOutputLimit(-1),
		"WithExecStdinPipe":   sandbox.WithExecStdinPipe(),
	} {
		_, err := sb.Exec(t.Context(), "true", nil, opt)
		wantErr(t, field, err, sandbox.ErrInvalidConfig)
		if err != nil && (!strings.Contains(err.Error(), field) || strings.Contains(err.Error(), "secret-value")) {
			t.Errorf("%s: error is %v", field, err)
		}
	}
	_, err := sb.Exec(t.Context(), "", nil)
	wantErr(t, "empty command", err, sandbox.ErrInvalidConfig)
	_, err = sb.Exec(t.Context(), "echo", []string{"a\x00b"})
	wantErr(t, "NUL in an argument", err, sandbox.ErrInvalidConfig)
}

func TestEnvironment(t *testing.T) {
	sb := guest(t)
	got := shell(t, sb, `echo "$FROM_CREATE $BOTH $FROM_EXEC $HOME"`,
		sandbox.WithExecEnv(map[string]string{"BOTH": "exec", "FROM_EXEC": "exec"}))
	if got != "create exec exec /root" {
		t.Errorf("environment is %q", got)
	}
	// Far beyond any fixed buffer; one variable may have 128 KiB in Linux.
	big := map[string]string{}
	for i := range 10 {
		big[fmt.Sprintf("BIG%d", i)] = strings.Repeat("x", 100<<10)
	}
	if got := shell(t, sb, `echo ${#BIG0} ${#BIG9}`, sandbox.WithExecEnv(big)); got != "102400 102400" {
		t.Errorf("big environment arrives as %q", got)
	}
}

func TestUsers(t *testing.T) {
	sb := guest(t)
	for spec, want := range map[string]string{
		"user": "1000 1000 /home/user", "1000": "1000 1000 /home/user", "user:0": "1000 0 /home/user",
		"4242:4343": "4242 4343 /",
	} {
		if got := shell(t, sb, `echo $(id -u) $(id -g) $HOME`, sandbox.WithExecUser(spec)); got != want {
			t.Errorf("user %s: %q, want %q", spec, got, want)
		}
	}
}

func TestStdin(t *testing.T) {
	sb := guest(t)
	if got := shell(t, sb, "cat"); got != "" { // /dev/null
		t.Errorf("read %q from no stdin", got)
	}
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20/16*3) // 3 MiB
	out, err := sb.Exec(t.Context(), "cat", nil, sandbox.WithExecStdinBytes(data))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.StdoutBytes(), data) {
		t.Errorf("cat returned %d bytes of %d, or others", len(out.StdoutBytes()), len(data))
	}
	// A command that takes no stdin ends all the same.
	out, err = sb.Exec(t.Context(), "true", nil, sandbox.WithExecStdinBytes(data))
	if err != nil || !out.Success() {
		t.Errorf("true with stdin: %v, %v", out, err)
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBinaryStreamsInBoundedMemory(t *testing.T) {
	sb := guest(t)
	const size = 48 << 20
	in, sum := sha256.New(), sha256.New()
	cmd := sb.Command(t.Context(), "sh", "-c", "cat; exit 3")
	cmd.Stdin = io.TeeReader(io.LimitReader(zeros{}, size), in)
	cmd.Stdout = sum
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := cmd.Run()
	runtime.ReadMemStats(&after)
	var ee *sandbox.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != 3 {
		t.Fatalf("error is %v, want exit code 3", err)
	}
	if got, want := hex.EncodeToString(sum.Sum(nil)), hex.EncodeToString(in.Sum(nil)); got != want {
		t.Errorf("what came back is not what was sent")
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func TestOutputLimit(t *testing.T) {
	sb := guest(t)
	_, err := sb.Shell(t.Context(), "while true; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", sandbox.WithExecOutputLimit(100<<10))
	wantErr(t, "endless output", err, sandbox.ErrOutputLimit)
	var ie *sandbox.InterruptedError
	if !errors.As(err, &ie) || len(ie.Output.StdoutBytes()) == 0 {
		t.Errorf("nothing of the output was kept: %v", err)
	}
}

func TestTimeoutKillsTheGroup(t *testing.T) {
	sb := guest(t)
	begin := time.Now()
	_, err := sb.Shell(t.Context(), "echo before; sleep 3600 & sleep 3600", sandbox.WithExecTimeout(5*time.Second))
	wantErr(t, "timeout", err, sandbox.ErrExecTimeout)
	var ie *sandbox.InterruptedError
	if !errors.As(err, &ie) || ie.Output.Stdout() != "before\n" || ie.Output.ExitCode() != -1 {
		t.Errorf("error is %+v", err)
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
	eventually(t, "the end of the whole group", func() bool { return running(t, sb, "sleep") == 0 })
}

func TestCancelKillsTheGroup(t *testing.T) {
	sb := guest(t)
	ctx, cancel := context.WithCancel(t.Context())
	h, err := sb.ShellStream(ctx, "echo started; sleep 3600")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	waitForOutput(t, h)
	cancel()
	_, err = h.Collect(t.Context())
	wantErr(t, "cancelled", err, context.Canceled)
	eventually(t, "the end of the whole group", func() bool { return running(t, sb, "sleep") == 0 })
}

func TestBackgroundChildDoesNotHoldTheExec(t *testing.T) {
	sb := guest(t)
	begin := time.Now()
	if got := shell(t, sb, "sleep 20 & echo done"); got != "done" {
		t.Errorf("printed %q", got)
	}
	if d := time.Since(begin); d > 15*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestTerminal(t *testing.T) {
	sb := guest(t)
	h, err := sb.ExecStream(t.Context(), "sh", []string{"-c", "stty size; read x; stty size; echo $TERM"},
		sandbox.WithExecTTY("vt100"), sandbox.WithExecStdinPipe())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Resize(40, 132); err != nil {
		t.Fatal(err)
	}
	in := h.TakeStdin()
	if again := h.TakeStdin(); again != nil {
		t.Error("stdin can be taken twice")
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	out, err := h.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.Stdout(), "40 132") || !strings.Contains(out.Stdout(), "vt100") || out.Stderr() != "" {
		t.Errorf("printed %q", out.Stdout())
	}
}

func TestRlimits(t *testing.T) {
	sb := guest(t)
	got := shell(t, sb, "cat /proc/self/limits", sandbox.WithExecRlimits(map[sandbox.Resource]sandbox.Rlimit{
		sandbox.RlimitNoFile: sandbox.Limit(456), sandbox.RlimitCore: {Soft: 123, Hard: 456},
	}))
	for _, want := range []string{"Max open files            456                  456", "Max core file size        123                  456"} {
		if !strings.Contains(got, want) {
			t.Errorf("limits lack %q:\n%s", want, got)
		}
	}
}

func TestStreamEvents(t *testing.T) {
	sb := guest(t)
	h, err := sb.ShellStream(t.Context(), "echo out; echo err >&2; exit 5")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var kinds []sandbox.ExecEventKind
	var out, errOut string
	for {
		ev, err := h.Recv(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, ev.Kind)
		switch ev.Kind {
		case sandbox.ExecEventStarted:
			if ev.PID <= 1 || ev.PID != h.PID() {
				t.Errorf("PID is %d", ev.PID)
			}
		case sandbox.ExecEventStdout:
			out += string(ev.Data)
		case sandbox.ExecEventStderr:
			errOut += string(ev.Data)
		case sandbox.ExecEventExited:
			if ev.State.ExitCode() != 5 {
				t.Errorf("exit is %v", ev.State)
			}
		}
	}
	if kinds[0] != sandbox.ExecEventStarted || kinds[len(kinds)-1] != sandbox.ExecEventExited || out != "out\n" || errOut != "err\n" {
		t.Errorf("events %v, stdout %q, stderr %q", kinds, out, errOut)
	}
}

func TestSignals(t *testing.T) {
	sb := guest(t)
	h, err := sb.ShellStream(t.Context(), "trap 'echo got it; exit 9' USR1; echo ready; while true; do sleep 0.05; done")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	waitForOutput(t, h)
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	state, err := h.Wait(t.Context())
	if err != nil || state.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", state, err)
	}
}
