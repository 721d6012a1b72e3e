package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

func TestOptionsReachTheGuest(t *testing.T) {
	sb := create(t, "options", sandbox.WithCPUs(2), sandbox.WithMemory(200<<20), sandbox.WithHostname("box"),
		sandbox.WithUser("user"), sandbox.WithWorkdir("/home/user"), sandbox.WithLabels(map[string]string{"a": "b"}),
		sandbox.WithRlimits(map[sandbox.Resource]sandbox.Rlimit{sandbox.RlimitNoFile: sandbox.Limit(200)}))
	got := shell(t, sb, `hostname; cat /etc/hostname; grep -c box /etc/hosts; grep -c ^processor /proc/cpuinfo; whoami; pwd; grep -c "open files  *200  *200" /proc/self/limits`)
	want := "box\nbox\n1\n2\nuser\n/home/user\n1"
	if got != want {
		t.Errorf("the guest says\n%s\nwant\n%s", got, want)
	}
	var kib int
	if _, err := fmt.Sscanf(shell(t, sb, "grep MemTotal /proc/meminfo"), "MemTotal: %d kB", &kib); err != nil || kib < 150<<10 || kib > 200<<10 {
		t.Errorf("%d KiB of memory, %v", kib, err)
	}
	if sb.Labels()["a"] != "b" || sb.Name() != "options" || sb.Status() != sandbox.StatusRunning {
		t.Errorf("labels %v, name %q, status %v", sb.Labels(), sb.Name(), sb.Status())
	}
	timings := sb.Timings()
	for what, d := range map[string]time.Duration{"prepare": timings.Prepare, "machine": timings.Machine, "kernel": timings.Kernel, "agent": timings.Agent, "setup": timings.Setup} {
		if d <= 0 || d > timings.Total {
			t.Errorf("phase %s took %v of %v", what, d, timings.Total)
		}
	}
}

func TestManyCPUsAndMuchMemory(t *testing.T) {
	sb := create(t, "large", sandbox.WithCPUs(6), sandbox.WithMemory(5<<30))
	if got := shell(t, sb, "grep -c ^processor /proc/cpuinfo"); got != "6" {
		t.Errorf("%s processors", got)
	}
	var kib int
	if _, err := fmt.Sscanf(shell(t, sb, "grep MemTotal /proc/meminfo"), "MemTotal: %d kB", &kib); err != nil || kib < 4900<<10 {
		t.Errorf("%d KiB of memory, %v", kib, err)
	}
	if used, err := sb.HostMemory(); err != nil || used > 1<<30 {
		t.Errorf("an idle guest of 5 GiB takes %d MiB of the host, %v", used>>20, err)
	}
}

func TestNames(t *testing.T) {
	sb := create(t, "taken")
	_, err := sandbox.Create(t.Context(), "taken", sandbox.WithHome(home))
	wantErr(t, "taken name", err, sandbox.ErrAlreadyExists)
	sb.Close()
	create(t, "taken").Close() // free again

	var wg sync.WaitGroup
	var mu sync.Mutex
	won, lost := 0, 0
	for range 5 {
		wg.Go(func() {
			sb, err := sandbox.Create(t.Context(), "race", sandbox.WithEphemeral(), sandbox.WithHome(home), sandbox.WithMemory(128<<20))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
				t.Cleanup(func() { sb.Close() })
			case errors.Is(err, sandbox.ErrAlreadyExists):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 4 {
		t.Errorf("%d creates of one name won, %d lost", won, lost)
	}
}

func TestRecordOfAKilledProcessIsTakenOver(t *testing.T) {
	kvmtest.RequireLinux(t)
	for _, name := range []string{"dead", "other"} {
		dir := filepath.Join(home, "sandboxes", name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{
			"lock": "", "leftover": "",
			"sandbox.json": `{"version": 1, "status": "running", "started": "2020-02-02T02:02:02Z", "config": {"ephemeral": true}}`,
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	sb := create(t, "dead")
	sb.Close()
	for _, name := range []string{"dead", "other"} {
		if _, err := os.Stat(filepath.Join(home, "sandboxes", name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("record %s is still there: %v", name, err)
		}
	}
}

func TestStop(t *testing.T) {
	sb := create(t, "stop")
	h, err := sb.ShellStream(t.Context(), "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.05; done")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	waitForOutput(t, h)
	go sb.Stop(t.Context())
	if out, err := h.Collect(t.Context()); err == nil && strings.TrimSpace(out.Stdout()) != "bye" {
		t.Errorf("the command printed %q at the end", out.Stdout())
	}
	if err := sb.Wait(t.Context()); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if err := sb.Stop(t.Context()); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if got := sb.Status(); got != sandbox.StatusStopped {
		t.Errorf("status is %v", got)
	}
	_, err = sb.Exec(t.Context(), "true", nil)
	wantErr(t, "exec after stop", err, sandbox.ErrNotRunning)
	wantErr(t, "ping after stop", sb.Ping(t.Context()), sandbox.ErrNotRunning)
	wantErr(t, "pause after stop", sb.Pause(t.Context()), sandbox.ErrNotRunning)
}

func TestKillEndsRunningCommands(t *testing.T) {
	sb := create(t, "kill")
	failed := make(chan error, 1)
	go func() {
		_, err := sb.Exec(t.Context(), "sleep", []string{"3600"})
		failed <- err
	}()
	eventually(t, "sleep", func() bool { return running(t, sb, "sleep") == 1 })
	if err := sb.Kill(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "exec of a killed sandbox", <-failed, sandbox.ErrNotRunning)
	if got := sb.Status(); got != sandbox.StatusStopped {
		t.Errorf("status is %v", got)
	}
}

func TestDrain(t *testing.T) {
	sb := create(t, "drain")
	h, err := sb.ShellStream(t.Context(), "echo ready; sleep 1; echo finished")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	drained := make(chan error)
	go func() { drained <- sb.Drain(t.Context()) }()
	eventually(t, "draining", func() bool { return sb.Status() == sandbox.StatusDraining })
	_, err = sb.Exec(t.Context(), "true", nil)
	wantErr(t, "exec while draining", err, sandbox.ErrNotRunning)
	out, err := h.Collect(t.Context())
	if err != nil || out.Stdout() != "ready\nfinished\n" {
		t.Errorf("the running command gave %v, %v", out, err)
	}
	h.Close()
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
}

func TestCrash(t *testing.T) {
	sb := create(t, "crash")
	_, err := sb.Shell(t.Context(), "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
	wantErr(t, "the command", err, sandbox.ErrNotRunning)
	err = sb.Wait(t.Context())
	var ce *sandbox.CrashError
	if !errors.As(err, &ce) || !strings.Contains(ce.Reason, "kernel panic: sysrq triggered crash") || ce.Console == "" {
		t.Errorf("Wait: %v", err)
	}
	if got := sb.Status(); got != sandbox.StatusCrashed {
		t.Errorf("status is %v", got)
	}
}

func TestPauseStopsTheGuest(t *testing.T) {
	sb := create(t, "pause")
	h, err := sb.ShellStream(t.Context(), "while true; do echo tick; sleep 0.02; done")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ticks := make(chan struct{}, 1)
	go func() {
		for {
			ev, err := h.Recv(t.Context())
			if err != nil {
				return
			}
			if ev.Kind == sandbox.ExecEventStdout {
				select {
				case ticks <- struct{}{}:
				default:
				}
			}
		}
	}()
	<-ticks
	if err := sb.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sb.Status(); got != sandbox.StatusPaused {
		t.Errorf("status is %v", got)
	}
	_, err = sb.Exec(t.Context(), "true", nil)
	wantErr(t, "exec while paused", err, sandbox.ErrNotRunning)
	wantErr(t, "second pause", sb.Pause(t.Context()), sandbox.ErrNotRunning)
	time.Sleep(100 * time.Millisecond) // what was under way arrives
	select {
	case <-ticks:
	default:
	}
	select {
	case <-ticks:
		t.Error("a paused guest ticks")
	case <-time.After(300 * time.Millisecond):
	}
	if err := sb.Resume(); err != nil {
		t.Fatal(err)
	}
	<-ticks
	wantErr(t, "second resume", sb.Resume(), sandbox.ErrNotRunning)
}

func TestMaxDuration(t *testing.T) {
	sb := create(t, "expires", sandbox.WithMaxDuration(200*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := sb.Wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestGuestReboots(t *testing.T) {
	sb := create(t, "reboots")
	sb.Shell(t.Context(), "echo 1 > /proc/sys/kernel/sysrq; echo b > /proc/sysrq-trigger")
	if err := sb.Wait(t.Context()); err != nil {
		t.Errorf("a guest that reboots has stopped, not crashed: %v", err)
	}
}

// openFiles counts what a cancelled Create could leave behind in this process.
func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestCancelCreateAtAnyMoment(t *testing.T) {
	sb := create(t, "warm-up") // caches are filled, and how long a create takes is known
	whole := sb.Timings().Total
	sb.Close()
	files, routines := openFiles(t), runtime.NumGoroutine()
	const steps = 12
	for i := range steps {
		ctx, cancel := context.WithTimeoutCause(t.Context(), whole*time.Duration(i)/steps, errors.New("given up"))
		sb, err := sandbox.Create(ctx, "cancelled", sandbox.WithEphemeral(), sandbox.WithHome(home), sandbox.WithMemory(128<<20))
		if err == nil {
			sb.Close() // it was quicker this time
		} else if !strings.Contains(err.Error(), "given up") {
			t.Errorf("step %d: error is %v", i, err)
		}
		cancel()
	}
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= routines })
	if now := openFiles(t); now > files {
		t.Errorf("%d files open before, %d after", files, now)
	}
	if _, err := os.Stat(filepath.Join(home, "sandboxes", "cancelled")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a record is left: %v", err)
	}
}

// TestManyAtOnce boots twenty sandboxes at the same time.
func TestManyAtOnce(t *testing.T) {
	kvmtest.RequireLinux(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprintf("many-%d", i)
			sb, err := sandbox.Create(t.Context(), name, sandbox.WithEphemeral(), sandbox.WithHome(home), sandbox.WithMemory(128<<20))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { sb.Close() })
			out, err := sb.Exec(t.Context(), "hostname", nil)
			if err != nil || strings.TrimSpace(out.Stdout()) != name {
				t.Errorf("%s: %v, %v", name, out, err)
			}
		})
	}
	wg.Wait()
}
