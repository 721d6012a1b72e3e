package sandbox_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

// posixDir tells this test binary that it runs in a guest, and where to test.
const posixDir = "HUTCHTEST_POSIX_DIR"

// TestPOSIXInside is go-fuse's table of file system behaviour. It runs in a guest,
// started by TestPOSIX.
func TestPOSIXInside(t *testing.T) {
	dir := os.Getenv(posixDir)
	if dir == "" {
		t.Skip("is run by TestPOSIX")
	}
	for name, f := range posixtest.All {
		switch name {
		case "FcntlFlockLocksFile": // wants a process to conflict with its own record lock; go-fuse skips it too
			continue
		case "OpenSymlinkRace": // takes minutes in an emulated host; rootfs/share's tests have it
			continue
		}
		t.Run(name, func(t *testing.T) {
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			f(t, sub)
		})
	}
}

// TestPOSIX runs that table in a guest, on a directory of the host.
func TestPOSIX(t *testing.T) {
	kvmtest.RequireLinux(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(filepath.Join(dir, "test"), self); err != nil {
		t.Fatal(err)
	}
	m := sandbox.MountBind(dir)
	sb, err := sandbox.Create(t.Context(), "posix", sandbox.WithHome(home), sandbox.WithEphemeral(),
		sandbox.WithMounts(map[string]sandbox.Mount{"/share": m}))
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	out, err := sb.Exec(t.Context(), "/share/test", []string{"-test.run", "^TestPOSIXInside$", "-test.v"},
		sandbox.WithExecEnv(map[string]string{posixDir: "/share"}))
	if err != nil {
		t.Fatal(err)
	}
	if text := out.Stdout(); !out.Success() || !strings.Contains(text, "--- PASS: TestPOSIXInside/RenameOpenDir") {
		t.Errorf("%s\n%s", out.Stdout(), out.Stderr())
	}
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
