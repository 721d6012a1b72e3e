//go:build unix

package sandbox

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"
)

// imageArchive is a docker archive of one small image, and its name.
func imageArchive(t *testing.T) []byte {
	t.Helper()
	var layer, out bytes.Buffer
	w := tar.NewWriter(&layer)
	w.WriteHeader(&tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755})
	w.Close()
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer.Bytes()))
	manifest, err := json.Marshal([]any{map[string]any{"Config": "c.json", "RepoTags": []string{"app:1"}, "Layers": []string{"l.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	w = tar.NewWriter(&out)
	for name, b := range map[string][]byte{"c.json": []byte(config), "l.tar": layer.Bytes(), "manifest.json": manifest} {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))})
		w.Write(b)
	}
	w.Close()
	return out.Bytes()
}

// TestImageInUse: the image of a stopped sandbox stays, whatever else goes.
func TestImageInUse(t *testing.T) {
	home := t.TempDir()
	ctx, in := context.Background(), WithHome(home)
	imgs, err := LoadImagesFrom(ctx, bytes.NewReader(imageArchive(t)), LoadImageOptions{}, in)
	if err != nil {
		t.Fatal(err)
	}
	i := testInfo("web", false)
	i.Status, i.Started, i.Root.Image = StatusStopped, time.Now(), imgs[0].Digest
	rec, err := claim(home, i)
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := RemoveImage(ctx, "app:1", false, in); !errors.Is(err, ErrImageInUse) {
		t.Errorf("remove: %v", err)
	}
	if r, err := PruneImages(ctx, true, in); err != nil || len(r.Images) != 0 {
		t.Errorf("prune: %+v, %v", r, err)
	}
	if img, err := InspectImage(ctx, "app:1", in); err != nil || img.Digest != imgs[0].Digest {
		t.Errorf("inspect: %v", err)
	}
	if err := Remove(ctx, "web", in); err != nil {
		t.Fatal(err)
	}
	if r, err := RemoveImage(ctx, "app:1", false, in); err != nil || len(r.Images) != 1 {
		t.Errorf("remove: %+v, %v", r, err)
	}
	if all, err := Images(ctx, in); err != nil || len(all) != 0 {
		t.Errorf("left: %v, %v", all, err)
	}

	for name, err := range map[string]error{
		"pull":     func() error { _, err := PullImage(ctx, "UPPER", nil, in); return err }(),
		"policy":   func() error { _, err := PullImage(ctx, "app:1", nil, in, WithPullPolicy(7)); return err }(),
		"password": func() error { _, err := PullImage(ctx, "app:1", nil, in, WithRegistryAuth("me", "")); return err }(),
		"never":    func() error { _, err := PullImage(ctx, "app:1", nil, in, WithPullPolicy(PullNever)); return err }(),
	} {
		want := map[string]error{"pull": ErrInvalidReference, "never": ErrImageNotFound}[name]
		if want == nil {
			want = ErrInvalidConfig
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
