package ext4

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tool runs a program of Debian's package e2fsprogs.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("HUTCH_REQUIRE_KVM") == "1" {
			t.Fatalf("%v: install Debian's package e2fsprogs", err)
		}
		t.Skipf("%v: needs Debian's package e2fsprogs", err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fsck fails the test when there is anything to complain about.
func fsck(t testing.TB, f *os.File) {
	t.Helper()
	tool(t, "e2fsck", "-fn", f.Name())
}

func create(t testing.TB, size int64, o Options) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := Make(f, size, o); err != nil {
		t.Fatal(err)
	}
	return f
}

// allocated is what the file takes on the host.
func allocated(t testing.TB, f *os.File) int64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

var sizes = []int64{
	MinSize, MinSize + 4095, 2<<20 + 1, 7 << 20, 8<<20 - 1, 8 << 20, 50<<20 + 513,
	128<<20 - 4096, 128 << 20, 128<<20 + 4096, 129 << 20, 131 << 20, 512<<20 + 12345, 1 << 30, 4 << 30,
	8<<30 - 4096, 8 << 30, 8<<30 + 3<<20, 16<<30 + 77, 100 << 30,
}

func TestMakeIsClean(t *testing.T) {
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := create(t, size, Options{Label: "hutch"})
			fsck(t, f)
			if fi, err := f.Stat(); err != nil || fi.Size() != size {
				t.Fatal(fi, err)
			}
			info, err := Probe(f, size)
			if err != nil || !info.Growable || info.Label != "hutch" || info.Size > size || size-info.Size > 4<<20 || info.NeedsRecovery {
				t.Errorf("%+v %v", info, err)
			}
			if got := allocated(t, f); got > 512<<10 {
				t.Errorf("takes %d bytes", got)
			}
		})
	}
}

func TestMakeHuge(t *testing.T) {
	f := create(t, 1<<40, Options{})
	fsck(t, f)
	if got := allocated(t, f); got > 4<<20 {
		t.Errorf("1 TiB takes %d bytes", got)
	}
	out := tool(t, "dumpe2fs", "-h", f.Name())
	for _, want := range []string{"Block count:              268435456", "meta_bg", "64bit", "metadata_csum", "Total journal size:       64M", "Default mount options:    user_xattr acl discard"} {
		if !strings.Contains(out, want) {
			t.Errorf("dumpe2fs does not say %q:\n%s", want, out)
		}
	}
	f = create(t, MaxSize-4096, Options{})
	if info, err := Probe(f, MaxSize-4096); err != nil || info.Size < MaxSize-4<<20 {
		t.Error(info, err)
	}
}

func TestMakeReproduces(t *testing.T) {
	o := Options{UUID: [16]byte{1, 2, 3}, Time: time.Unix(1e9, 5), Label: "sixteen letters!", UID: 70000, GID: 1, Mode: 0o1777}
	var sums [2][32]byte
	for i := range sums {
		f := create(t, 64<<20, o)
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			t.Fatal(err)
		}
		sums[i] = [32]byte(h.Sum(nil))
		out := tool(t, "debugfs", "-R", "stat <2>", f.Name())
		for _, want := range []string{"Mode:  01777", "User: 70000", "Group:     1", "2001"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %s", want, out)
			}
		}
	}
	if sums[0] != sums[1] {
		t.Error("two makes differ")
	}
}

func TestMakeRefuses(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{-1, 0, MinSize - 1, MaxSize + 1} {
		if err := Make(f, size, Options{}); err == nil {
			t.Errorf("size %d was accepted", size)
		}
	}
	if err := Make(f, MinSize, Options{Label: strings.Repeat("x", 17)}); err == nil {
		t.Error("a long label was accepted")
	}
	if fi, _ := f.Stat(); fi.Size() != 0 {
		t.Error("a refused Make changed the file")
	}
}

func TestE2imageReadsIt(t *testing.T) {
	f := create(t, 4<<30, Options{})
	tool(t, "e2image", f.Name(), f.Name()+".e2i")
	tool(t, "dumpe2fs", "-i", f.Name()+".e2i")
}

// populate writes files with debugfs and returns a function that checks them.
func populate(t *testing.T, f *os.File, n int) (check func()) {
	t.Helper()
	dir := t.TempDir()
	want := map[string][]byte{}
	var script strings.Builder
	script.WriteString("mkdir /dir\n")
	for i := range n {
		b := make([]byte, rand.IntN(300<<10))
		for k := range b {
			b[k] = byte(rand.Uint32())
		}
		host, guest := filepath.Join(dir, fmt.Sprint(i)), fmt.Sprintf("/dir/f%d", i)
		if err := os.WriteFile(host, b, 0o600); err != nil {
			t.Fatal(err)
		}
		want[guest] = b
		fmt.Fprintf(&script, "write %s %s\n", host, guest)
	}
	cmds := filepath.Join(dir, "script")
	if err := os.WriteFile(cmds, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "debugfs", "-w", "-f", cmds, f.Name())
	return func() {
		t.Helper()
		for guest, b := range want {
			out := filepath.Join(dir, "out")
			tool(t, "debugfs", "-R", "dump "+guest+" "+out, f.Name())
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, b) {
				t.Fatalf("%s: %d bytes, want %d, %v", guest, len(got), len(b), err)
			}
		}
	}
}
