package share

import (
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer returns a server with one export, "data", of a new directory.
func newServer(t testing.TB, o Options) (*Server, string) {
	t.Helper()
	if o.Path == "" {
		o.Path = t.TempDir()
	}
	s, err := New(Config{OnPanic: func(v any) { t.Errorf("panic: %v", v) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Add("data", o); err != nil {
		t.Fatal(err)
	}
	return s, o.Path
}

// mount mounts the exports on this machine, with this kernel as the client, and
// returns the directory of export "data".
func mount(t *testing.T, s *Server) string {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("HUTCH_REQUIRE_KVM") == "1" && os.Geteuid() == 0 {
			t.Fatal("no /dev/fuse")
		}
		t.Skip("needs /dev/fuse and root")
	}
	dir := t.TempDir()
	srv, err := fuse.NewServer(s.tree, dir, &fuse.MountOptions{
		DirectMountStrict: true,
		AllowOther:        true,
		Options:           []string{"default_permissions"},
		DirectMountFlags:  unix.MS_NOATIME, // not nosuid and nodev
		MaxWrite:          MaxRequestBytes,
		DisableSplice:     true,
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2,
		Logger:            log.New(io.Discard, "", 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve()
	if err := srv.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			t.Error(err)
		}
		s.Reset()
	})
	return filepath.Join(dir, "data")
}

// TestPOSIX runs go-fuse's table of file system behaviour through a real kernel.
func TestPOSIX(t *testing.T) {
	for _, o := range []struct {
		name string
		opt  Options
	}{{"kept apart", Options{}}, {"mirrored", Options{Mirror: true}}, {"quota", Options{Quota: 1 << 30}}} {
		t.Run(o.name, func(t *testing.T) {
			s, _ := newServer(t, o.opt)
			dir := mount(t, s)
			for name, f := range posixtest.All {
				if name == "FcntlFlockLocksFile" {
					continue // wants a process to conflict with its own record lock; go-fuse skips it too
				}
				t.Run(name, func(t *testing.T) {
					sub := filepath.Join(dir, name)
					if err := os.Mkdir(sub, 0o755); err != nil {
						t.Fatal(err)
					}
					f(t, sub)
				})
			}
		})
	}
}
