package sandbox_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/sandbox"
)

// TestBadOptionsAreNamed: every bad option is refused before anything is done,
// by an error that names it.
func TestBadOptionsAreNamed(t *testing.T) {
	untouched := filepath.Join(t.TempDir(), "home")
	for _, tt := range []struct {
		names string
		opt   sandbox.Option
	}{
		{"WithCPUs", sandbox.WithCPUs(0)},
		{"WithCPUs", sandbox.WithCPUs(65)},
		{"WithMemory", sandbox.WithMemory(1 << 20)},
		{"WithMemory", sandbox.WithMemory(1 << 62)},
		{"WithMemory", sandbox.WithMemory(^uint64(0))},
		{"WithOCIUpperSize", sandbox.WithOCIUpperSize(1 << 20)},
		{"WithOCIUpperSize", sandbox.WithOCIUpperSize(^uint64(0))},
		{"WithReplaceTimeout", sandbox.WithReplaceTimeout(-1)},
		{"WithEnv", sandbox.WithEnv(map[string]string{"": "x"})},
		{"WithEnv", sandbox.WithEnv(map[string]string{"A=B": "x"})},
		{"HUTCH_TOKEN", sandbox.WithEnv(map[string]string{"HUTCH_TOKEN": "secret-value"})},
		{"WithEnv", sandbox.WithEnv(map[string]string{"A": "secret-value\x00"})},
		{"WithSecurity", sandbox.WithSecurity("none")},
		{"WithImage", sandbox.WithImage("\xff")},
		{"WithFSType", sandbox.WithFSType("ntfs")},
		{"WithPullPolicy", sandbox.WithPullPolicy(7)},
		{"WithRegistryAuth", sandbox.WithRegistryAuth("user", "")},
		{"WithEntrypoint", sandbox.WithEntrypoint("")},
		{"WithCmd", sandbox.WithCmd("a\x00")},
		{"WithScripts", sandbox.WithScripts(map[string]string{"a/b": ""})},
		{"WithScripts", sandbox.WithScripts(map[string]string{"large": strings.Repeat("x", 5<<20)})},
		{"WithWorkdir", sandbox.WithWorkdir("relative")},
		{"WithShell", sandbox.WithShell("sh")},
		{"WithUser", sandbox.WithUser(":group")},
		{"WithUser", sandbox.WithUser("a:b:c")},
		{"WithHostname", sandbox.WithHostname("")},
		{"WithHostname", sandbox.WithHostname("with space")},
		{"WithHostname", sandbox.WithHostname(strings.Repeat("h", 65))},
		{"WithLabels", sandbox.WithLabels(map[string]string{"hutch.x": ""})},
		{"WithRlimits", sandbox.WithRlimits(map[sandbox.Resource]sandbox.Rlimit{"files": {}})},
		{"WithRlimits", sandbox.WithRlimits(map[sandbox.Resource]sandbox.Rlimit{sandbox.RlimitCPU: {Soft: 2, Hard: 1}})},
		{"WithMaxDuration", sandbox.WithMaxDuration(-time.Second)},
		{"WithNetwork", sandbox.WithNetwork(sandbox.NetworkPublic().WithDenied(nil, []string{".com"}))},
		{"WithDNS", sandbox.WithDNS(sandbox.DNSConfig{Nameservers: []string{"not a server"}})},
		{"WithDNS", sandbox.WithDNS(sandbox.DNSConfig{Timeout: -1})},
		{"WithDNS", sandbox.WithDNS(sandbox.DNSConfig{Search: []string{"-"}})},
		{"WithPorts", sandbox.WithPorts(map[uint16]uint16{80: 0})},
		{"WithIPv4Pool", sandbox.WithIPv4Pool(netip.MustParsePrefix("10.0.0.0/31"))},
		{"WithIPv4Pool", sandbox.WithIPv4Pool(netip.MustParsePrefix("fd00::/64"))},
		{"WithIPv6Pool", sandbox.WithIPv6Pool(netip.MustParsePrefix("fd00::/65"))},
		{"WithMaxConnections", sandbox.WithMaxConnections(4097)},
		{"WithNetworkRate", sandbox.WithNetworkRate(sandbox.NetworkRate{BytesPerSecond: -1}, sandbox.NetworkRate{})},
	} {
		_, err := sandbox.Create(t.Context(), "bad", sandbox.WithHome(untouched), tt.opt)
		wantErr(t, tt.names, err, sandbox.ErrInvalidConfig)
		if err != nil && (!strings.Contains(err.Error(), tt.names) || strings.Contains(err.Error(), "secret-value")) {
			t.Errorf("%s: error is %v", tt.names, err)
		}
	}
	for _, name := range []string{"", ".", "..", "-x", "a/b", "a b", "ä", strings.Repeat("n", 129)} {
		_, err := sandbox.Create(t.Context(), name, sandbox.WithHome(untouched))
		wantErr(t, "name "+name, err, sandbox.ErrInvalidConfig)
	}
	if _, err := os.Stat(untouched); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused create touched its home: %v", err)
	}
}

// TestCreateErrors: what cannot be known before has a clear error as well, and
// leaves nothing behind.
func TestCreateErrors(t *testing.T) {
	kvmtest.RequireLinux(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	elf, err := kernel.ELF()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		opt  sandbox.Option
		want error
		text string
	}{
		"missing kernel":        {sandbox.WithKernel(dir + "/none"), os.ErrNotExist, "WithKernel"},
		"kernel is a directory": {sandbox.WithKernel(dir), sandbox.ErrInvalidConfig, "WithKernel"},
		"truncated kernel":      {sandbox.WithKernel(file("cut", elf[:len(elf)/2])), sandbox.ErrInvalidConfig, "truncated"},
		"not a kernel":          {sandbox.WithKernel(file("text", []byte(strings.Repeat("text", 1000)))), sandbox.ErrInvalidConfig, "WithKernel"},
		"missing initramfs":     {sandbox.WithInitramfs(dir + "/none"), os.ErrNotExist, "WithInitramfs"},
		"corrupt initramfs":     {sandbox.WithInitramfs(file("initramfs", []byte(strings.Repeat("text", 1000)))), sandbox.ErrInvalidConfig, "WithInitramfs"},
		"no KVM":                {sandbox.WithKVMDevice(dir + "/kvm"), sandbox.ErrNoKVM, "KVM"},
		"workdir is missing":    {sandbox.WithWorkdir("/no/such/dir"), sandbox.ErrInvalidConfig, "WithWorkdir"},
		"workdir is a file":     {sandbox.WithWorkdir("/etc/passwd"), sandbox.ErrInvalidConfig, "WithWorkdir"},
		"no such user":          {sandbox.WithUser("nobodyhere"), sandbox.ErrInvalidConfig, "WithUser"},
		"no such group":         {sandbox.WithUser("root:nogrouphere"), sandbox.ErrInvalidConfig, "WithUser"},
		"home is a file":        {sandbox.WithHome(file("home", nil)), nil, "home"},
	} {
		t.Run(name, func(t *testing.T) {
			files := openFiles(t)
			sb, err := sandbox.Create(t.Context(), "fails", sandbox.WithHome(home), sandbox.WithMemory(128<<20), tt.opt)
			if err == nil {
				sb.Close()
				t.Fatal("Create succeeded")
			}
			if tt.want != nil {
				wantErr(t, name, err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q does not say %q", err, tt.text)
			}
			if now := openFiles(t); now > files {
				t.Errorf("%d files open before, %d after", files, now)
			}
			if _, err := os.Stat(filepath.Join(home, "sandboxes", "fails")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a record is left: %v", err)
			}
		})
	}
}

// TestNoPermissionForKVM runs itself as an unprivileged user, for root may open
// any device.
func TestNoPermissionForKVM(t *testing.T) {
	kvmtest.RequireLinux(t)
	const device = "HUTCHTEST_KVM_DEVICE"
	if path := os.Getenv(device); path != "" {
		_, err := sandbox.Create(t.Context(), "fails", sandbox.WithHome(t.TempDir()), sandbox.WithKVMDevice(path))
		wantErr(t, "create", err, sandbox.ErrNoKVM)
		wantErr(t, "create", err, os.ErrPermission)
		if err != nil && !strings.Contains(err.Error(), "group kvm") {
			t.Errorf("error %q does not say what to do", err)
		}
		return
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "kvm")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The test binary may lie where only its owner may look.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestNoPermissionForKVM$", "-test.v")
	cmd.Env = append(os.Environ(), device+"="+path, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if os.Getuid() != 0 {
		cmd.SysProcAttr = nil
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNoPermissionForKVM") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDoctorIsContent(t *testing.T) {
	kvmtest.RequireLinux(t)
	for _, k := range sandbox.Doctor(sandbox.WithHome(home)) {
		if !k.OK {
			t.Errorf("doctor: %+v", k)
		}
	}
}
