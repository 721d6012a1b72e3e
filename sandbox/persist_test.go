package sandbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

// keep makes a sandbox that is kept, and removes it at the end.
func keep(t testing.TB, name string, opts ...sandbox.Option) *sandbox.Sandbox {
	t.Helper()
	kvmtest.RequireLinux(t)
	sb, err := sandbox.Create(t.Context(), name, append([]sandbox.Option{sandbox.WithHome(home), sandbox.WithMemory(128 << 20)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Remove(context.Background(), name, sandbox.WithHome(home)); err != nil && !errors.Is(err, sandbox.ErrNotFound) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { sb.Close() })
	return sb
}

// TestStopAndStart: what the guest wrote and closed is there after a stop and
// a start, and so are the options; the disk grows when told to.
func TestStopAndStart(t *testing.T) {
	sb := keep(t, "kept", sandbox.WithEnv(map[string]string{"KEPT": "\xffyes"}), sandbox.WithUser("user"), sandbox.WithWorkdir("/home/user"),
		sandbox.WithOCIUpperSize(64<<20), sandbox.WithLabels(map[string]string{"kept": "yes"}))
	shell(t, sb, "echo hello > file; mkdir dir; ln -s ../file dir/link; rm -r /home/user/nothing 2>/dev/null; head -c 5000000 /dev/zero > zeroes")
	_, err := sandbox.Start(t.Context(), "kept", sandbox.WithHome(home))
	wantErr(t, "start of one that runs", err, sandbox.ErrStillRunning)
	wantErr(t, "removal of one that runs", sandbox.Remove(t.Context(), "kept", sandbox.WithHome(home)), sandbox.ErrStillRunning)
	_, err = sandbox.Create(t.Context(), "kept", sandbox.WithHome(home))
	wantErr(t, "create of one that is there", err, sandbox.ErrAlreadyExists)
	if err := sb.Stop(t.Context()); err != nil { // not synced
		t.Fatal(err)
	}
	h, err := sandbox.Get(t.Context(), "kept", sandbox.WithHome(home))
	if err != nil || h.Status() != sandbox.StatusStopped || h.Labels()["kept"] != "yes" || h.Config().UpperSize != 64<<20 || h.EndedAt().IsZero() {
		t.Fatalf("%+v, %v", h, err)
	}
	_, err = sandbox.Create(t.Context(), "kept", sandbox.WithHome(home))
	wantErr(t, "create of one that has stopped", err, sandbox.ErrAlreadyExists)

	sb, err = h.Start(t.Context(), sandbox.WithOCIUpperSize(256<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	got := shell(t, sb, `cat dir/link; stat -c %s zeroes; printenv KEPT; pwd; whoami; df -k / | awk 'NR==2 { print ($2 > 200000) }' 2>/dev/null || df -k /`)
	if !strings.HasPrefix(got, "hello\n5000000\n\xffyes\n/home/user\nuser") {
		t.Errorf("after the start the guest says %q", got)
	}
	var kib int
	for i, f := range strings.Fields(shell(t, sb, "df -k / | tail -n 1")) {
		if i == 1 {
			for _, c := range f {
				kib = kib*10 + int(c-'0')
			}
		}
	}
	if kib < 220<<10 || kib > 256<<10 {
		t.Errorf("the disk has %d KiB after it has grown", kib)
	}
	// A crash keeps what was synced, and is told.
	shell(t, sb, "echo more >> file; sync")
	sb.Shell(t.Context(), "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", sandbox.WithExecUser("root"))
	if err := sb.Wait(t.Context()); err == nil {
		t.Error("a crash went unnoticed")
	}
	if h, err = sandbox.Get(t.Context(), "kept", sandbox.WithHome(home)); err != nil || h.Status() != sandbox.StatusCrashed || !strings.Contains(h.Reason(), "panic") {
		t.Fatalf("%v, %v, %v", h.Status(), h.Reason(), err)
	}
	sb, err = h.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	if got := shell(t, sb, "cat file"); got != "hello\nmore" {
		t.Errorf("after the crash the file holds %q", got)
	}
	// A start that fails leaves it as it was.
	sb.Close()
	_, err = sandbox.Start(t.Context(), "kept", sandbox.WithHome(home), sandbox.WithWorkdir("/none"))
	wantErr(t, "start with a bad directory", err, sandbox.ErrInvalidConfig)
	if h, err = sandbox.Get(t.Context(), "kept", sandbox.WithHome(home)); err != nil || h.Status() != sandbox.StatusStopped || h.Config().Workdir != "/home/user" {
		t.Errorf("%+v, %v", h, err)
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(home + "/sandboxes/kept"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record is still there: %v", err)
	}
}

// childName is set in a process that is to run a sandbox of that name until it ends.
const childName = "HUTCHTEST_SANDBOX"

// sandboxMain is that process.
func sandboxMain(name string) {
	opts := []sandbox.Option{sandbox.WithMemory(128 << 20)}
	if strings.HasPrefix(name, "ephemeral") {
		opts = append(opts, sandbox.WithEphemeral())
	}
	sb, err := sandbox.Create(context.Background(), name, opts...)
	if errors.Is(err, sandbox.ErrAlreadyExists) {
		sb, err = sandbox.Start(context.Background(), name)
	}
	if err == nil {
		_, err = sb.Shell(context.Background(), "date >> /dates; sync")
	}
	if err == nil {
		fmt.Println("running")
		err = sb.Wait(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// childCommand is a process that runs a sandbox.
func childCommand(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childName+"="+name, "HUTCH_HOME="+home)
	cmd.Stderr = os.Stderr
	return cmd
}

// inChild runs a sandbox in another process.
func inChild(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := childCommand(t, name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "running\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return cmd
}

// TestTwoProcesses: what one process can do with a sandbox of another, and what
// happens when that is killed.
func TestTwoProcesses(t *testing.T) {
	kvmtest.RequireLinux(t)
	at := sandbox.WithHome(home)
	t.Cleanup(func() { sandbox.Remove(context.Background(), "other", at) })
	child := inChild(t, "other")
	h, err := sandbox.Get(t.Context(), "other", at)
	if err != nil || h.Status() != sandbox.StatusRunning || h.PID() != child.Process.Pid {
		t.Fatalf("%+v, %v", h, err)
	}
	_, err = h.Start(t.Context())
	wantErr(t, "start of what another process runs", err, sandbox.ErrStillRunning)
	wantErr(t, "removal of what another process runs", h.Remove(t.Context()), sandbox.ErrStillRunning)
	remote, err := h.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := shell(t, remote, "cat; exit 0", sandbox.WithExecStdinBytes([]byte(strings.Repeat("0123456789", 50000)))); len(got) != 500000 {
		t.Errorf("%d bytes came back through the other process", len(got))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := remote.Exec(ctx, "sleep", []string{"3600"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that was cancelled: %v", err)
	}
	eventually(t, "its end", func() bool { return running(t, remote, "sleep") == 0 })
	wantErr(t, "pause from elsewhere", remote.Pause(t.Context()), sandbox.ErrUnsupported)
	if remote.Status() != sandbox.StatusRunning || remote.OwnsLifecycle() || remote.Close() != nil {
		t.Errorf("status %s, owns it %v", remote.Status(), remote.OwnsLifecycle())
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = remote.Exec(t.Context(), "true", nil)
	wantErr(t, "a command after the end", err, sandbox.ErrNotRunning)
	if err := remote.Wait(t.Context()); err != nil || remote.Status() != sandbox.StatusStopped {
		t.Errorf("%v, %s", err, remote.Status())
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the child whose sandbox was stopped: %v", err)
	}
	if h, err = sandbox.Get(t.Context(), "other", at); err != nil || h.Status() != sandbox.StatusStopped || h.Stop(t.Context()) != nil {
		t.Fatalf("%+v, %v", h, err)
	}

	child = inChild(t, "other")
	child.Process.Kill()
	child.Wait()
	if h, err = sandbox.Get(t.Context(), "other", at); err != nil || h.Status() != sandbox.StatusCrashed || !strings.Contains(h.Reason(), fmt.Sprint(child.Process.Pid)) {
		t.Fatalf("%+v, %v", h, err)
	}
	sb, err := h.Start(t.Context()) // its journal is replayed
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	if got := shell(t, sb, "wc -l < /dates"); got != "2" {
		t.Errorf("%s lines were kept, want 2", got)
	}
	// It is replaced by its name, in whichever process it is.
	replaced, err := sandbox.Create(t.Context(), "other", at, sandbox.WithEphemeral(), sandbox.WithReplaceTimeout(5*time.Second), sandbox.WithMemory(128<<20))
	if err != nil {
		t.Fatal(err)
	}
	if got := shell(t, replaced, "ls /dates 2>/dev/null | wc -l"); got != "0" || sb.Status() != sandbox.StatusStopped {
		t.Errorf("%s, and the old one is %s", got, sb.Status())
	}
	if h, err = sandbox.Get(t.Context(), "other", at); err != nil || h.Kill(t.Context()) != nil || replaced.Status() != sandbox.StatusStopped {
		t.Errorf("%+v, %v", h, err)
	}
	_, err = sandbox.Get(t.Context(), "other", at)
	wantErr(t, "an ephemeral one that was killed", err, sandbox.ErrNotFound)

	// One that was killed while it was created is as if it had never been, or
	// one that was killed.
	for i := range 5 {
		cmd := childCommand(t, "early")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i*i) * 60 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		switch h, err := sandbox.Get(t.Context(), "early", at); {
		case err == nil && h.Status() != sandbox.StatusCrashed:
			t.Errorf("killed after %d: it is %s", i, h.Status())
		case err == nil:
			if err := h.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		case !errors.Is(err, sandbox.ErrNotFound):
			t.Errorf("killed after %d: %v", i, err)
		}
	}

	child = inChild(t, "ephemeral-other")
	child.Process.Kill()
	child.Wait()
	_, err = sandbox.Get(t.Context(), "ephemeral-other", at)
	wantErr(t, "an ephemeral one whose process was killed", err, sandbox.ErrNotFound)
	create(t, "early").Close() // which sweeps as well
	if _, err := os.Stat(home + "/sandboxes/ephemeral-other"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its record was not swept: %v", err)
	}
}
