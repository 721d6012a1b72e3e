package oci

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/layer"
)

// TestDiskFull: a full disk is said plainly, and is not left full.
func TestDiskFull(t *testing.T) {
	home := t.TempDir()
	if err := unix.Mount("tmpfs", home, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(home, unix.MNT_DETACH) })
	reg := newRegistry(t)
	small := reg.push(t, "small", imageOf(t, randomTar(t, 1<<20)))
	s := newStore(t, home)

	// Known before anything is fetched.
	big := reg.push(t, "big", imageOf(t, randomTar(t, 4<<20)))
	if _, err := s.Pull(t.Context(), big, PullOptions{}); !errors.Is(err, ErrImagePull) || !strings.Contains(err.Error(), "left") {
		t.Errorf("too big: %v", err)
	}
	// While it is fetched: somebody else writes.
	filler := home + "/filler"
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Pull(t.Context(), small, PullOptions{Progress: func(e Event) {
		if e.Kind == EventResolved {
			f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				for err == nil {
					_, err = f.Write(make([]byte, 4096))
				}
				f.Close()
			}
		}
	}})
	if !errors.Is(err, unix.ENOSPC) || !errors.Is(err, ErrImagePull) {
		t.Errorf("full while fetching: %v", err)
	}
	if left := leftovers(t, s); left != nil {
		t.Errorf("left behind: %v", left)
	}
	// While it is converted.
	if err := os.Truncate(filler, 1<<20); err != nil {
		t.Fatal(err)
	}
	s.convert = func(ctx context.Context, l []layer.Layer, out *os.File, o layer.Options) (layer.Stats, error) {
		concat(ctx, l, out, o)
		_, err := out.Write(make([]byte, 2<<20))
		return layer.Stats{}, err
	}
	if _, err := s.Pull(t.Context(), small, PullOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("full while converting: %v", err)
	}
	if left := leftovers(t, s); left != nil {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.convert = concat
	if _, err := s.Pull(t.Context(), small, PullOptions{}); err != nil {
		t.Errorf("with space again: %v", err)
	}
}
