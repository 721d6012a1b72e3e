package sandbox_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hutchvm/hutch/rootfs/ext4"
	"github.com/hutchvm/hutch/sandbox"
)

// TestWritableDisk: what a guest deletes is given back to the host; a full disk is
// an error in the guest and nothing worse; and e2fsck finds nothing wrong.
func TestWritableDisk(t *testing.T) {
	const size, big = 128 << 20, 40 << 20
	sb := keep(t, "disk", sandbox.WithOCIUpperSize(size))
	path := filepath.Join(home, "sandboxes", "disk", "upper.img")
	onHost := func() int64 {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	start := onHost()
	if start > 4<<20 {
		t.Errorf("a fresh disk takes %d bytes", start)
	}
	shell(t, sb, "dd if=/dev/zero of=/big bs=1M count=40; sync")
	full := onHost()
	if full < big {
		t.Errorf("with a file of %d bytes the disk takes %d", big, full)
	}
	shell(t, sb, "rm /big; sync")
	eventually(t, "discard", func() bool { return onHost() < full-big*9/10 })
	t.Logf("bytes on the host: fresh %d, with the file %d, without it %d", start, full, onHost())

	shell(t, sb, "echo kept > /kept; sync")
	out, err := sb.Shell(t.Context(), "dd if=/dev/zero of=/fill bs=1M")
	if err != nil || out.Success() || !strings.Contains(strings.ToLower(out.Stderr()), "no space left") {
		t.Errorf("filling the disk: %v, %v, %s", err, out.State(), out.Stderr())
	}
	shell(t, sb, "rm /fill; echo more >> /kept; sync")
	if err := sb.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := ext4.Probe(f, size)
	if err != nil || info.HasErrors {
		t.Fatalf("%+v, %v", info, err)
	}
	if err := ext4.Grow(f, 2*size); err != nil {
		t.Fatalf("needs recovery %v: %v", info.NeedsRecovery, err)
	}
	if got, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("needed recovery %v: %v\n%s", info.NeedsRecovery, err, got)
	}
	if got, err := exec.Command("debugfs", "-R", "cat /upper/kept", path).Output(); err != nil || string(got) != "kept\nmore\n" {
		list, _ := exec.Command("debugfs", "-R", "ls /", path).Output()
		t.Errorf("%q, %v; %s", got, err, list)
	}
}
