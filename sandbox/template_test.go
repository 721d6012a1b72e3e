package sandbox_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

// inHome makes an ephemeral sandbox of 128 MiB in a home of the test's own.
func inHome(t *testing.T, home, name string, opts ...sandbox.Option) *sandbox.Sandbox {
	t.Helper()
	sb, err := sandbox.Create(t.Context(), name, append([]sandbox.Option{
		sandbox.WithHome(home), sandbox.WithMemory(128 << 20), sandbox.WithEphemeral(),
	}, opts...)...)
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

// wantTemplate checks whether sb started from a template.
func wantTemplate(t *testing.T, sb *sandbox.Sandbox, want bool) {
	t.Helper()
	if got := sb.Timings(); got.Template != want || want != (got.Kernel == 0) {
		t.Errorf("%s: template %v, %v in the kernel; want %v", sb.Name(), got.Template, got.Kernel, want)
	}
}

// templates are the finished templates of a home.
func templates(t *testing.T, home string) []string {
	t.Helper()
	all, err := filepath.Glob(home + "/cache/templates/[0-9a-f]*")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range all {
		if filepath.Ext(f) == "" {
			out = append(out, f)
		}
	}
	return out
}

func TestTemplate(t *testing.T) {
	kvmtest.RequireLinux(t)
	home := t.TempDir()
	// What a process leaves that was killed while it made one.
	dir := home + "/cache/templates"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"lock", ".making-1234"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("HUTCHSNP"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	wantTemplate(t, inHome(t, home, "booted", sandbox.WithoutTemplate()), false)
	if n := len(templates(t, home)); n != 0 {
		t.Errorf("%d templates without being asked", n)
	}
	wantTemplate(t, inHome(t, home, "first"), false)
	if n := len(templates(t, home)); n != 1 {
		t.Fatalf("%d templates", n)
	}

	// Two at once from the same template, and a third one later.
	var wg sync.WaitGroup
	copies := make([]*sandbox.Sandbox, 3)
	for i := range 2 {
		wg.Go(func() {
			var err error
			copies[i], err = sandbox.Create(t.Context(), "copy-"+strconv.Itoa(i), sandbox.WithHome(home), sandbox.WithMemory(128<<20), sandbox.WithEphemeral())
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { copies[i].Close() })
		})
	}
	wg.Wait()
	copies[2] = inHome(t, home, "copy-2")
	shell(t, copies[2], "true") // soon, for what is learnt from a first command
	said := map[string]bool{}
	for _, sb := range copies {
		if sb == nil {
			t.FailNow()
		}
		wantTemplate(t, sb, true)
		// Random numbers of the kernel, one that it makes once, and the first ones
		// of a new process.
		for _, script := range []string{
			"od -An -tx1 -N16 /dev/urandom", "cat /proc/sys/kernel/random/boot_id", "cat /proc/sys/kernel/random/uuid", "hostname", "cat /etc/hostname",
		} {
			out := shell(t, sb, script)
			if key := script + out; said[key] {
				t.Errorf("%s: %q in two sandboxes", script, out)
			} else {
				said[key] = true
			}
		}
		now := time.Now()
		sec, err := strconv.ParseInt(shell(t, sb, "date +%s"), 10, 64)
		if off := time.Unix(sec, 0).Sub(now); err != nil || off < -2*time.Second || off > 5*time.Second {
			t.Errorf("the guest's clock is off by %v (%v)", off, err)
		}
		begin := time.Now()
		shell(t, sb, "sleep 0.2")
		if took := time.Since(begin); took < 200*time.Millisecond {
			t.Errorf("sleeping for 200 ms takes %v", took)
		}
	}
	// The later ones know what the first ones wrote to.
	if hot, err := filepath.Glob(dir + "/*.hot"); err != nil || len(hot) != 1 {
		t.Errorf("hot memory: %v, %v", hot, err)
	}
	// What one of them does is not seen by the next one.
	shell(t, copies[0], "echo 1 > /root/mine; hostname other")
	if got := shell(t, inHome(t, home, "copy-3"), "hostname; ls /root"); got != "copy-3" {
		t.Errorf("a later copy says %q", got)
	}
	for _, sb := range copies {
		sb.Close()
	}
	// Another shape, of several CPUs.
	two := inHome(t, home, "two", sandbox.WithCPUs(2))
	wantTemplate(t, two, false)
	again := inHome(t, home, "again", sandbox.WithCPUs(2))
	wantTemplate(t, again, true)
	if got := shell(t, again, "nproc; for i in 1 2 3 4; do taskset -p $$ >/dev/null 2>&1; done; echo ok"); got != "2\nok" {
		t.Errorf("two CPUs: %q", got)
	}
	if err := again.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := again.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := again.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTemplateWithAnotherDisk: the disks of a copy are not those of the original.
func TestTemplateWithAnotherDisk(t *testing.T) {
	kvmtest.RequireLinux(t)
	home := t.TempDir()
	for i, mib := range []uint64{64, 160, 48} { // one larger and one smaller than the original
		sb := inHome(t, home, "disk-"+strconv.Itoa(i), sandbox.WithOCIUpperSize(mib<<20))
		wantTemplate(t, sb, i > 0)
		if got, want := shell(t, sb, "cat /sys/block/vdb/size"), strconv.FormatUint(mib<<11, 10); got != want {
			t.Errorf("%d MiB: %s sectors", mib, got)
		}
		shell(t, sb, "test ! -e /root/before && echo 1 > /root/before && dd if=/dev/zero of=/root/zero bs=1M count=8 2>/dev/null && sync")
		sb.Close()
	}
}

// TestBadTemplates: a template that is no good is replaced, or left alone, and
// the guest boots.
func TestBadTemplates(t *testing.T) {
	kvmtest.RequireLinux(t)
	home := t.TempDir()
	inHome(t, home, "first").Close()
	path := templates(t, home)[0]
	for name, spoil := range map[string]func(*os.File, int64) error{
		"damaged":     func(f *os.File, _ int64) error { _, err := f.WriteAt([]byte("x"), 200); return err },
		"written to":  func(f *os.File, size int64) error { _, err := f.WriteAt([]byte("x"), size-1); return err },
		"not a guest": func(f *os.File, size int64) error { _, err := f.WriteAt(make([]byte, size-1<<20), 1<<20); return err },
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		os.Chmod(path, 0o600)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			err = spoil(f, info.Size())
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if name != "written to" {
			os.Chtimes(path, time.Now(), info.ModTime())
		}
		sb := inHome(t, home, "bad")
		if wantTemplate(t, sb, false); shell(t, sb, "echo fine") != "fine" {
			t.Errorf("%s: the guest does not work", name)
		}
		sb.Close()
		if name != "not a guest" { // replaced on the way
			good := inHome(t, home, "good")
			wantTemplate(t, good, true)
			good.Close()
		} else {
			if n := len(templates(t, home)); n != 0 {
				t.Errorf("%s: %d templates", name, n)
			}
			failed, _ := filepath.Glob(path + ".failed")
			if len(failed) != 1 {
				t.Errorf("%s: nothing says that it failed", name)
			}
			os.Remove(path + ".failed")
			inHome(t, home, "anew").Close()
		}
	}
}

// TestTemplateCannotBeMade: that is no error.
func TestTemplateCannotBeMade(t *testing.T) {
	kvmtest.RequireLinux(t)
	home := t.TempDir()
	if err := os.MkdirAll(home+"/cache", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home+"/cache/templates", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sb := inHome(t, home, "sandbox")
	wantTemplate(t, sb, false)
	// Cancelled while it is made, at several moments.
	os.Remove(home + "/cache/templates")
	for _, after := range []time.Duration{300, 700, 1100} {
		ctx, cancel := context.WithTimeout(t.Context(), after*time.Millisecond)
		sb, err := sandbox.Create(ctx, "cancelled", sandbox.WithHome(home), sandbox.WithMemory(128<<20), sandbox.WithEphemeral())
		cancel()
		if err == nil {
			sb.Close()
		}
	}
	if left, _ := filepath.Glob(home + "/cache/templates/.making*"); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, " "))
	}
}
