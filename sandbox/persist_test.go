package sandbox_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

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
