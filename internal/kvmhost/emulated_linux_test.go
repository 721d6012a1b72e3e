package kvmhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/prep"
	"github.com/hutchvm/hutch/internal/kvmprobe"
)

// roleEnv makes the test binary act as a command inside.
const roleEnv = "KVMHOST_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "report" {
		os.Exit(report())
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// program builds the command and makes sure that it can work here. An emulated
// host within an emulated host would take minutes to start.
func program(t *testing.T) string {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("HUTCH_REQUIRE_KVM") == "1" {
		skip = t.Fatalf
	}
	if os.Getenv(EnvMode) == inside {
		t.Skip("already inside an emulated host")
	}
	built.once.Do(func() {
		if _, built.err = prep.Prepare(prep.Config{Cache: os.Getenv(EnvCache), Log: os.Stderr}); built.err != nil {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "kvmhost-test-"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", built.dir, "../../cmd/kvmhost")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if errors.Is(built.err, prep.ErrNoQEMU) || errors.Is(built.err, prep.ErrNoKernel) || errors.Is(built.err, prep.ErrNoTool) {
		skip("needs an emulated KVM host: %v", built.err)
	}
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "kvmhost")
}

// command is the program with an emulated host.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t), append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), EnvMode+"="+string(Emulated))
	return cmd
}

// finish runs a command and returns its exit code and what it wrote.
func finish(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// observed is what the report inside says.
type observed struct {
	Dir, Mode, Value, Home string
	Args                   []string
	UID, CPUs              int
	KVM                    bool
	RootWrite, TmpWrite    string
	Attribute, Network     string
	Devices                []string
	Clock                  time.Time
	Hostname               string
}

// report looks around inside and ends with a certain exit code.
func report() int {
	text := func(err error) string {
		if err == nil {
			return "ok"
		}
		return err.Error()
	}
	host, _ := os.Hostname()
	dir, _ := os.Getwd()
	o := observed{
		Dir: dir, Mode: os.Getenv(EnvMode), Value: os.Getenv("KVMHOST_TEST_VALUE"), Home: os.Getenv("HUTCH_HOME"), Args: os.Args[1:],
		UID: os.Getuid(), CPUs: runtime.NumCPU(), KVM: kvmprobe.Probe().Usable, Clock: time.Now(), Hostname: host,
	}
	err := os.WriteFile("/kvmhost-test", nil, 0o644)
	if errors.Is(err, unix.EROFS) {
		err = nil
	}
	o.RootWrite = text(err)
	o.TmpWrite = text(os.WriteFile("/tmp/kvmhost-test-inside", nil, 0o644))
	o.Attribute = text(unix.Setxattr(os.Getenv(EnvState), "user.x", []byte("1"), 0))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		_, err = net.Dial("tcp", listener.Addr().String())
	}
	o.Network = text(err)
	for _, name := range []string{"net/tun", "vhost-vsock", "fuse", "loop-control"} { // their modules load by this
		if f, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0); err == nil {
			f.Close()
			o.Devices = append(o.Devices, name)
		}
	}
	json.NewEncoder(os.Stdout).Encode(o)
	fmt.Fprint(os.Stderr, "on stderr")
	return 7
}

func TestInside(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "--", exe, "a b", "", "\xff")
	cmd.Env = append(cmd.Env, roleEnv+"=report", "KVMHOST_TEST_VALUE=x\ny=z \xfe", "HUTCH_HOME=")
	cmd.Dir = t.TempDir()
	begin := time.Now()
	code, stdout, stderr := finish(t, cmd)
	if code != 7 || stderr != "on stderr" {
		t.Errorf("exit code %d, stderr %q; want 7 and nothing else on it", code, stderr)
	}
	var got observed
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	if got.Clock.Before(begin) || got.Clock.After(time.Now()) {
		t.Errorf("clock %v inside, %v outside", got.Clock, begin)
	}
	host, _ := os.Hostname()
	want := observed{
		Dir: cmd.Dir, Mode: inside, Value: "x\ny=z \ufffd", Args: []string{"a b", "", "\ufffd"}, UID: os.Getuid(), CPUs: 1, KVM: true,
		RootWrite: "ok", TmpWrite: "ok", Attribute: "ok", Network: "ok",
		Devices: []string{"net/tun", "vhost-vsock", "fuse", "loop-control"}, Clock: got.Clock, Hostname: host,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("inside (-want +got):\n%s", diff)
	}
	if _, err := os.Stat("/tmp/kvmhost-test-inside"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file written to /tmp inside: %v outside", err)
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := finish(t, command(t, "-smp", "2", "-spread", "--", "nproc"))
	if code != 0 || stdout != "2\n" {
		t.Errorf("exit code %d, %q CPUs, want 2; %s", code, stdout, stderr)
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	kept, lost := t.TempDir(), t.TempDir()
	cmd := command(t, "-out", kept, "--", "sh", "-c", `echo kept > "$1/file" && echo lost > "$2/file"`, "sh", kept, lost)
	if code, _, stderr := finish(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if text, err := os.ReadFile(filepath.Join(kept, "file")); string(text) != "kept\n" {
		t.Errorf("shared file has %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(lost, "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file in a directory that is not shared: %v", err)
	}
}

// TestGoTest shows that go test works with the program, its profiles included.
// Results are not cached: go test does that for no program named by -exec.
func TestGoTest(t *testing.T) {
	t.Parallel()
	kvmhost := program(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.test/x\n\ngo 1.26\n",
		"x.go":   "package x\n\nfunc One() int { return 1 }\n",
		"x_test.go": "package x\n\nimport (\"os\"; \"testing\")\n\nfunc TestOne(t *testing.T) {\n" +
			"if One() != 1 || os.Getenv(\"" + EnvMode + "\") != \"inside\" { t.Error(\"not inside\") }\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	goTest := func(flags ...string) string {
		cmd := exec.Command("go", append([]string{"test", "-exec", kvmhost + " -q --"}, flags...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), EnvMode+"="+string(Emulated), "GOFLAGS=", "GOTOOLCHAIN=local", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go test: %v\n%s", err, out)
		}
		return string(out)
	}
	out := goTest("-coverprofile=cover.out", "-cpuprofile=cpu.out", ".")
	if !strings.Contains(out, "coverage: 100.0%") {
		t.Errorf("output %q has no coverage", out)
	}
	for _, name := range []string{"cover.out", "cpu.out"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStateUnusable shows that a saved state that is no good costs only time.
func TestStateUnusable(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	c := Config{Args: []string{"echo", "works"}, Stdout: &out, Log: &log, Init: program(t), Memory: 1024, CPUs: 1}
	probe := c
	if err := probe.complete(); err != nil {
		t.Fatal(err)
	}
	order, err := probe.command()
	if err != nil {
		t.Fatal(err)
	}
	m, err := probe.plan(order)
	if err != nil {
		t.Fatal(err)
	}
	key, err := m.key()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(m.host.States, 0o755); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(m.host.States, key)
	if err := os.WriteFile(state, []byte("no state"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), c)
	if err != nil || r.Code != 0 || r.Phases.Resumed || out.String() != "works\n" {
		t.Errorf("result %+v, %v, output %q", r, err, out.String())
	}
	if !strings.Contains(log.String(), "booting") {
		t.Errorf("log %q", log.String())
	}
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unusable state: %v", err)
	}
}

func TestConfigErrors(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   error
		code   int
	}{
		"no command":      {Config{}, ErrConfig, CodeHost},
		"no such command": {Config{Args: []string{"no-such-command-here"}}, exec.ErrNotFound, CodeNotFound},
		"no such path":    {Config{Args: []string{"./no/such/file"}}, os.ErrNotExist, CodeNotFound},
		"not executable":  {Config{Args: []string{"/etc/passwd"}}, os.ErrPermission, CodeCannotRun},
		"little memory":   {Config{Args: []string{"true"}, Memory: 1}, ErrConfig, CodeHost},
		"share a file":    {Config{Args: []string{"true"}, Share: []string{"/etc/passwd"}}, ErrConfig, CodeHost},
		"dynamic init":    {Config{Args: []string{"true"}, Init: "/bin/sh"}, ErrConfig, CodeHost},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "dynamic init" {
				program(t) // prepares
			}
			r, err := Run(context.Background(), c.config)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if code := ExitCode(r, err); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
		})
	}
}

func TestMissingQEMU(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs KVM of x86-64")
	}
	cmd := command(t, "-cache", t.TempDir(), "--", "/bin/true")
	cmd.Env = append(cmd.Env, "PATH=")
	code, _, stderr := finish(t, cmd)
	if code != CodeHost || !strings.Contains(stderr, "install the package qemu-system-x86") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestDirect(t *testing.T) {
	cmd := command(t, "--", "sh", "-c", "echo $$; exit 5")
	cmd.Env = append(cmd.Env, EnvMode+"="+string(Direct))
	code, stdout, _ := finish(t, cmd)
	if code != 5 || strings.TrimSpace(stdout) != fmt.Sprint(cmd.ProcessState.Pid()) {
		t.Errorf("exit code %d, process %q; want 5 from process %d itself", code, stdout, cmd.ProcessState.Pid())
	}
}
