package sandbox_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

// One sandbox serves all tests that do not end or change it: booting one takes
// a second or more in an emulated host.
var shared struct {
	once sync.Once
	sb   *sandbox.Sandbox
	err  error
}

var home string // of all sandboxes of this test binary

func TestMain(m *testing.M) {
	if name := os.Getenv(childName); name != "" {
		sandboxMain(name)
	}
	dir, err := os.MkdirTemp("", "hutch-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	home = dir
	os.Setenv("HUTCH_HOME", dir) // for the examples
	flag.Parse()
	if !runnable() && os.Getenv(kvmtest.RequireEnv) != "1" && flag.Lookup("test.run").Value.String() == "" {
		flag.Set("test.run", "^Test") // examples cannot be skipped
	}
	code := m.Run()
	if shared.sb != nil {
		shared.sb.Close()
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if left, _ := os.ReadDir(home + "/sandboxes"); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "records left behind: %v\n", left)
		code = 1
	}
	os.RemoveAll(home)
	os.Exit(code)
}

// runnable tells whether sandboxes can run here.
func runnable() bool {
	for _, check := range sandbox.Doctor() {
		if !check.OK {
			return false
		}
	}
	return true
}

// guest gives the shared sandbox.
func guest(t testing.TB) *sandbox.Sandbox {
	t.Helper()
	kvmtest.RequireLinux(t)
	shared.once.Do(func() {
		shared.sb, shared.err = sandbox.Create(context.Background(), "shared", sandbox.WithHome(home), sandbox.WithEphemeral(),
			sandbox.WithEnv(map[string]string{"FROM_CREATE": "create", "BOTH": "create"}))
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.sb
}

// create makes a sandbox of the test's own, which is ephemeral.
func create(t testing.TB, name string, opts ...sandbox.Option) *sandbox.Sandbox {
	t.Helper()
	kvmtest.RequireLinux(t)
	sb, err := sandbox.Create(t.Context(), name, append([]sandbox.Option{sandbox.WithHome(home), sandbox.WithEphemeral(), sandbox.WithMemory(128 << 20)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	})
	return sb
}

// shell runs a script that must succeed and gives what it printed, trimmed.
func shell(t testing.TB, sb *sandbox.Sandbox, script string, opts ...sandbox.ExecOption) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := sb.Shell(ctx, script, opts...)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	if !out.Success() {
		t.Fatalf("%s: %v\n%s", script, out.State(), out.Stderr())
	}
	return strings.TrimSpace(out.Stdout())
}

// eventually waits for ok, for a minute at most.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

// running counts the guest's processes of that name.
func running(t testing.TB, sb *sandbox.Sandbox, name string) int {
	t.Helper()
	return strings.Count(shell(t, sb, "cat /proc/[0-9]*/comm")+"\n", name+"\n")
}

// waitForOutput takes events until the command has printed something.
func waitForOutput(t testing.TB, h *sandbox.ExecHandle) {
	t.Helper()
	for {
		ev, err := h.Recv(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == sandbox.ExecEventStdout {
			return
		}
	}
}
