package ext4

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLinuxJournal replays what Linux left in the journal of a file system that it
// had mounted, which is copied while it is in use. It needs the right to mount.
func TestLinuxJournal(t *testing.T) {
	f := create(t, 64<<20, Options{})
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", f.Name(), dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount here: %v: %s", err, out)
	}
	mounted := true
	umount := func() {
		if mounted {
			mounted = false
			tool(t, "umount", dir)
		}
	}
	defer umount()
	replayed := 0
	for round := range 6 {
		for i := range 200 {
			sub := filepath.Join(dir, fmt.Sprint(rand.IntN(20)))
			name := filepath.Join(sub, fmt.Sprint(i%40))
			if err := os.MkdirAll(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			if rand.IntN(4) == 0 { // freed metadata is revoked
				_ = os.RemoveAll(sub)
			} else if err := os.WriteFile(name, make([]byte, rand.IntN(60<<10)), 0o644); err != nil {
				t.Fatal(err)
			}
			if rand.IntN(30) == 0 {
				if err := syncfs(dir); err != nil {
					t.Fatal(err)
				}
			}
		}
		kept := filepath.Join(dir, "kept")
		if err := os.WriteFile(kept, fmt.Appendf(nil, "round %d", round), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := syncfs(dir); err != nil {
			t.Fatal(err)
		}
		crashed, err := os.Create(filepath.Join(t.TempDir(), "crashed"))
		if err != nil {
			t.Fatal(err)
		}
		defer crashed.Close()
		if _, err := io.Copy(crashed, io.NewSectionReader(f, 0, 64<<20)); err != nil {
			t.Fatal(err)
		}
		if info, err := Probe(crashed, 64<<20); err != nil {
			t.Fatal(err)
		} else if info.NeedsRecovery {
			replayed++
		}
		if err := Grow(crashed, 300<<20); err != nil {
			t.Fatal(err)
		}
		fsck(t, crashed)
		if got := tool(t, "debugfs", "-R", "cat /kept", crashed.Name()); !strings.Contains(got, fmt.Sprintf("round %d", round)) {
			t.Errorf("round %d: the file says %q", round, got)
		}
	}
	if replayed == 0 {
		t.Error("no journal had to be replayed")
	}
	umount()
	fsck(t, f)
}

func syncfs(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}
