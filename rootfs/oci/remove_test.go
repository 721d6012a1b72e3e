package oci

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// threeImages pulls app:1 and app:2 that share a layer, and app:1 by a second name.
func threeImages(t *testing.T) (s *Store, one, two, alias *Image) {
	reg := newRegistry(t)
	base := randomTar(t, 64<<10)
	imgs := []*Image{}
	s = newStore(t, t.TempDir())
	a, b := imageOf(t, base), imageOf(t, base, randomTar(t, 64<<10))
	for _, ref := range []string{reg.push(t, "app:1", a), reg.push(t, "app:2", b), reg.push(t, "alias:1", a)} {
		img, err := s.Pull(t.Context(), ref, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		imgs = append(imgs, img)
	}
	return s, imgs[0], imgs[1], imgs[2]
}

func TestRemove(t *testing.T) {
	s, one, two, alias := threeImages(t)
	if _, err := s.Remove(one.Digest, RemoveOptions{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "alias:1") {
		t.Errorf("by digest, with two names: %v", err)
	}
	r, err := s.Remove(alias.Ref, RemoveOptions{})
	if err != nil || len(r.Images) != 0 || cmp.Diff([]string{alias.Ref}, r.Refs) != "" {
		t.Errorf("a name: %+v, %v", r, err)
	}
	if _, err := s.Get(alias.Ref); !errors.Is(err, ErrImageNotFound) {
		t.Error(err)
	}
	lease, err := one.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{one.Ref, one.Digest, hexOf(one.Digest)[:12]} {
		if _, err := s.Remove(ref, RemoveOptions{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "running") {
			t.Errorf("in use: %v", err)
		}
	}
	lease.Close()
	lease.Close()
	stopped := func(d string) string {
		if d == one.Digest {
			return "sandbox web"
		}
		return ""
	}
	if _, err := s.Remove(one.Ref, RemoveOptions{InUse: stopped}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "sandbox web") {
		t.Errorf("in use by a stopped one: %v", err)
	}
	blobs := entries(t, s, blobsDir)
	r, err = s.Remove(one.Ref, RemoveOptions{})
	if err != nil || cmp.Diff([]string{one.Digest}, r.Images) != "" || r.Bytes < 64<<10 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := blobs - entries(t, s, blobsDir); n != 2 { // manifest and configuration: the layer is shared
		t.Errorf("%d blobs removed", n)
	}
	if _, err := s.Get(two.Ref); err != nil {
		t.Error(err)
	}
	if _, err := s.Remove(one.Ref, RemoveOptions{}); !errors.Is(err, ErrImageNotFound) {
		t.Errorf("again: %v", err)
	}

	// By force, under a running sandbox, which keeps its file.
	lease, err = two.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	if _, err := s.Remove(two.Digest, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(lease.File); err != nil || int64(len(b)) != lease.Size {
		t.Errorf("the lease lost its file: %d bytes, %v", len(b), err)
	}
	if _, err := two.Acquire(); !errors.Is(err, ErrImageNotFound) {
		t.Error(err)
	}
	for _, d := range []string{refsDir, manifestsDir, blobsDir, rootsDir} {
		if n := entries(t, s, d); n != 0 {
			t.Errorf("%s: %d files left", d, n)
		}
	}
}

func TestPrune(t *testing.T) {
	s, one, two, alias := threeImages(t)
	if r, err := s.Prune(t.Context(), PruneOptions{}); err != nil || r.Images != nil || r.Bytes != 0 {
		t.Errorf("nothing to do: %+v, %v", r, err)
	}
	if err := os.Remove(s.refPath(two.Ref)); err != nil { // as if the name had moved on
		t.Fatal(err)
	}
	lease, err := two.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Prune(t.Context(), PruneOptions{}); err != nil || r.Images != nil {
		t.Errorf("in use: %+v, %v", r, err)
	}
	lease.Close()
	if r, err := s.Prune(t.Context(), PruneOptions{}); err != nil || cmp.Diff([]string{two.Digest}, r.Images) != "" || r.Bytes == 0 {
		t.Errorf("without a name: %+v, %v", r, err)
	}
	keep := func(string) string { return "sandbox" }
	if r, err := s.Prune(t.Context(), PruneOptions{All: true, InUse: keep}); err != nil || r.Images != nil {
		t.Errorf("all, in use: %+v, %v", r, err)
	}
	r, err := s.Prune(t.Context(), PruneOptions{All: true})
	if err != nil || cmp.Diff([]string{one.Digest}, r.Images) != "" || len(r.Refs) != 2 {
		t.Errorf("all: %+v, %v", r, err)
	}
	if _, err := s.Get(alias.Ref); !errors.Is(err, ErrImageNotFound) {
		t.Error(err)
	}
	if n := entries(t, s, blobsDir) + entries(t, s, rootsDir); n != 0 {
		t.Errorf("%d files left", n)
	}
}

// TestRemoveRace pulls and removes at the same time: a pull that succeeds gives
// an image that was there.
func TestRemoveRace(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, randomTar(t, 10<<10)))
	home := t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		s := newStore(t, home)
		wg.Go(func() {
			for range 15 {
				img, err := s.Pull(t.Context(), ref, PullOptions{})
				if err != nil {
					if !errors.Is(err, ErrImageNotFound) {
						t.Error(err)
					}
					continue
				}
				if l, err := img.Acquire(); err == nil {
					l.Close()
				} else if !errors.Is(err, ErrImageNotFound) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 15 {
				if _, err := s.Remove(ref, RemoveOptions{}); err != nil && !errors.Is(err, ErrImageNotFound) && !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s := newStore(t, home)
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Prune(t.Context(), PruneOptions{All: true}); err != nil {
		t.Error(err)
	}
	if left := leftovers(t, s); left != nil {
		t.Errorf("left behind: %v", left)
	}
}
