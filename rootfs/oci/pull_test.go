package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/hutchvm/hutch/rootfs/layer"
)

var nopLogger = log.New(io.Discard, "", 0)

// trace collects the kinds of events, runs of one kind once.
type trace struct {
	kinds  []string
	events []Event
}

func (tr *trace) add(e Event) {
	tr.events = append(tr.events, e)
	if n := len(tr.kinds); n == 0 || tr.kinds[n-1] != e.Kind.String() {
		tr.kinds = append(tr.kinds, e.Kind.String())
	}
}

func (tr *trace) has(k EventKind, want func(Event) bool) bool {
	return slices.ContainsFunc(tr.events, func(e Event) bool { return e.Kind == k && want(e) })
}

func TestPull(t *testing.T) {
	reg := newRegistry(t)
	a, b := layerTar(t, map[string]string{"a": "lower"}), randomTar(t, 300<<10)
	want := slices.Concat(a, b)
	for _, tc := range []struct {
		name     string
		pack     string
		layer    types.MediaType
		manifest types.MediaType
		config   types.MediaType
	}{
		{"oci-gzip", "gzip", types.OCILayer, types.OCIManifestSchema1, types.OCIConfigJSON},
		{"oci-zstd", "zstd", types.OCILayerZStd, types.OCIManifestSchema1, types.OCIConfigJSON},
		{"oci-plain", "", types.OCIUncompressedLayer, types.OCIManifestSchema1, types.OCIConfigJSON},
		{"docker-gzip", "gzip", types.DockerLayer, types.DockerManifestSchema2, types.DockerConfigJSON},
		{"docker-zstd", "zstd", dockerLayerZstd, types.DockerManifestSchema2, types.DockerConfigJSON},
		{"docker-plain", "", types.DockerUncompressedLayer, types.DockerManifestSchema2, types.DockerConfigJSON},
		{"mislabelled", "zstd", types.OCILayer, types.OCIManifestSchema1, types.OCIConfigJSON},
	} {
		t.Run(tc.name, func(t *testing.T) {
			img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, tc.manifest), tc.config)
			img = appendLayer(t, img, layerOf(t, a, tc.pack, tc.layer))
			img = appendLayer(t, img, layerOf(t, b, tc.pack, tc.layer))
			img = withConfig(t, img, v1.Config{Entrypoint: []string{"/e"}, Cmd: []string{"c"}})
			ref := reg.push(t, tc.name+":v1", img)
			s := newStore(t, t.TempDir())
			var tr trace
			got, err := s.Pull(t.Context(), ref, PullOptions{Progress: tr.add})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content(t, got), want) {
				t.Error("the root is not made of the layers in order")
			}
			if got.Digest != digest(t, img) || got.Ref != ref || got.RootSize != int64(len(want)) || len(got.Layers) != 2 {
				t.Errorf("image %+v", got)
			}
			if diff := cmp.Diff(Config{Entrypoint: []string{"/e"}, Cmd: []string{"c"}}, got.Config); diff != "" {
				t.Errorf("config -want +got\n%s", diff)
			}
			first, last := tr.kinds[0], tr.kinds[len(tr.kinds)-1]
			if first != "resolving" || tr.kinds[1] != "resolved" || last != "complete" {
				t.Errorf("events %v", tr.kinds)
			}
			for i, l := range got.Layers {
				if !tr.has(EventLayer, func(e Event) bool { return e.Layer == i && e.Done == l.Size && e.Total == l.Size && !e.Cached }) ||
					!tr.has(EventLayerVerified, func(e Event) bool { return e.Layer == i && e.Digest == l.Digest }) {
					t.Errorf("layer %d: not all events: %+v", i, tr.events)
				}
			}
			if !tr.has(EventConvert, func(e Event) bool { return e.Done == e.Total }) {
				t.Error("no end of the conversion")
			}
			if left := leftovers(t, s); left != nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestPolicies(t *testing.T) {
	reg := newRegistry(t)
	one, two := imageOf(t, randomTar(t, 1000)), imageOf(t, randomTar(t, 2000))
	ref := reg.push(t, "app:v1", one)
	s := newStore(t, t.TempDir())
	pull := func(ref string, p PullPolicy) (*Image, *trace, error) {
		tr := &trace{}
		img, err := s.Pull(t.Context(), ref, PullOptions{Policy: p, Progress: tr.add})
		return img, tr, err
	}
	if _, _, err := pull(ref, PullNever); !errors.Is(err, ErrImageNotFound) {
		t.Errorf("never: %v", err)
	}
	if reg.count("") != 0 {
		t.Error("never to pull went to the network")
	}
	img, _, err := pull(ref, PullIfMissing)
	if err != nil {
		t.Fatal(err)
	}
	byDigest := reg.host + "/app@" + img.Digest
	reg.push(t, "app:v1", two)
	for _, r := range []string{ref, img.Digest, byDigest, reg.host + "/app:other@" + img.Digest, "other.example.com/name@" + img.Digest} {
		for _, p := range []PullPolicy{PullIfMissing, PullNever} {
			got, tr, err := pull(r, p)
			if err != nil || got.Digest != img.Digest {
				t.Fatalf("%s: %v", r, err)
			}
			if diff := cmp.Diff([]string{"resolving", "resolved", "complete"}, tr.kinds); diff != "" || !tr.events[1].Cached {
				t.Errorf("events -want +got\n%s", diff)
			}
		}
	}
	if got, err := s.Get(hexOf(img.Digest)[:12]); err != nil || got.Digest != img.Digest {
		t.Errorf("by the first digits: %v", err)
	}
	if reg.count("") != 0 {
		t.Errorf("a cached image went to the network: %v", reg.requests)
	}
	got, _, err := pull(ref, PullAlways)
	if err != nil || got.Digest != digest(t, two) {
		t.Fatalf("always: %+v, %v", got, err)
	}
	if _, err := s.Get(img.Digest); err != nil {
		t.Errorf("the old image has gone with its name: %v", err)
	}
	// Unchanged: one request for the manifest, and no layer.
	reg.forget()
	if _, tr, err := pull(ref, PullAlways); err != nil || reg.count("/blobs/") != 0 || tr.kinds[len(tr.kinds)-1] != "complete" {
		t.Errorf("always, unchanged: %v, %v, %v", err, reg.requests, tr.kinds)
	}
	reg.Close()
	if _, _, err := pull(ref, PullIfMissing); err != nil {
		t.Errorf("offline: %v", err)
	}
	if _, _, err := pull(ref, PullAlways); !errors.Is(err, ErrNetwork) || !errors.Is(err, ErrImagePull) {
		t.Errorf("always, offline: %v", err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Ref != "" || list[1].Ref != ref {
		t.Errorf("list: %+v, %v", list, err)
	}
}

func TestPullIndex(t *testing.T) {
	reg := newRegistry(t)
	mine, other := imageOf(t, randomTar(t, 100)), imageOf(t, randomTar(t, 200))
	entry := func(img v1.Image, os, arch, variant string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch, Variant: variant}}}
	}
	idx := mutate.AppendManifests(empty.Index, entry(other, "linux", "arm64", "v8"), entry(other, "unknown", "unknown", ""),
		entry(other, "linux", "amd64", "v3"), entry(mine, "linux", "amd64", ""), entry(other, "windows", "amd64", ""))
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: idx})
	s := newStore(t, t.TempDir())
	for name, i := range map[string]v1.ImageIndex{"flat": idx, "nested": nested, "docker": mutate.IndexMediaType(idx, types.DockerManifestList)} {
		ref := reg.push(t, name, i)
		img, err := s.Pull(t.Context(), ref, PullOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if img.Digest != digest(t, mine) || img.IndexDigest != digest(t, i) {
			t.Errorf("%s: %+v", name, img)
		}
		// By the digest of the index, which is what people pin, without the network.
		reg.forget()
		if img, err := s.Pull(t.Context(), reg.host+"/"+name+"@"+digest(t, i), PullOptions{}); err != nil || img.Digest != digest(t, mine) || reg.count("") != 0 {
			t.Errorf("%s: by the index' digest: %v", name, err)
		}
	}
	ref := reg.push(t, "foreign", mutate.AppendManifests(empty.Index, entry(other, "linux", "arm64", "")))
	if _, err := s.Pull(t.Context(), ref, PullOptions{}); !errors.Is(err, ErrUnsupportedImage) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("no platform of ours: %v", err)
	}
}

// Images that share layers fetch them once, and images of equal layers share a root.
func TestSharing(t *testing.T) {
	reg := newRegistry(t)
	base, top := randomTar(t, 5000), randomTar(t, 5000)
	one := imageOf(t, base)
	two := imageOf(t, base, top, base) // one layer twice
	three := withConfig(t, one, v1.Config{Cmd: []string{"other"}})
	s := newStore(t, t.TempDir())
	conversions := 0
	s.convert = func(ctx context.Context, l []layer.Layer, out *os.File, o layer.Options) (layer.Stats, error) {
		conversions++
		return concat(ctx, l, out, o)
	}
	for i, img := range []v1.Image{one, two, three} {
		got, err := s.Pull(t.Context(), reg.push(t, fmt.Sprintf("i%d", i), img), PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && !bytes.Equal(content(t, got), slices.Concat(base, top, base)) {
			t.Error("wrong root")
		}
		if want := []int{2, 2, 1}[i]; reg.count("GET") == 0 || reg.count("/blobs/") != want { // configuration and new layers
			t.Errorf("image %d: %d blobs fetched, want %d: %v", i, reg.count("/blobs/"), want, reg.requests)
		}
	}
	if conversions != 2 {
		t.Errorf("%d conversions, want 2", conversions)
	}
}

// TestAtOnce pulls one image many times at once, in one process.
func TestAtOnce(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, randomTar(t, 3<<20), randomTar(t, 1<<20)))
	home := t.TempDir()
	var mu sync.Mutex
	conversions := 0
	var wg sync.WaitGroup
	for range 8 {
		s := newStore(t, home)
		s.convert = func(ctx context.Context, l []layer.Layer, out *os.File, o layer.Options) (layer.Stats, error) {
			mu.Lock()
			conversions++
			mu.Unlock()
			return concat(ctx, l, out, o)
		}
		wg.Go(func() {
			img, err := s.Pull(t.Context(), ref, PullOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			content(t, img)
		})
	}
	wg.Wait()
	if conversions != 1 {
		t.Errorf("%d conversions", conversions)
	}
	for _, r := range reg.requests {
		if strings.Contains(r, "/blobs/") && reg.count(r) > 1 && !strings.Contains(r, configDigest(t, home, ref)) {
			t.Errorf("fetched %d times: %s", reg.count(r), r)
		}
	}
	if left := leftovers(t, newStore(t, home)); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func configDigest(t *testing.T, home, ref string) string {
	img, err := newStore(t, home).Get(ref)
	if err != nil {
		t.Fatal(err)
	}
	return img.ConfigDigest
}

// TestDamage: what was changed behind the store's back is noticed and mended.
func TestDamage(t *testing.T) {
	reg := newRegistry(t)
	layer := randomTar(t, 100<<10)
	ref := reg.push(t, "app", imageOf(t, layer))
	s := newStore(t, t.TempDir())
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	root, blob := s.rootPath(img.root.Key), s.blobPath(img.Layers[0].Digest)
	scribble := func(path string) error {
		os.Chmod(path, 0o600)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("scribble"), 5000)
		return err
	}
	for name, do := range map[string]func() error{
		"root gone":                   func() error { return os.Remove(root) },
		"root cut":                    func() error { return os.Truncate(root, 100) },
		"root written to":             func() error { return scribble(root) },
		"root gone, blob gone":        func() error { return errors.Join(os.Remove(root), os.Remove(blob)) },
		"root gone, blob written to":  func() error { return errors.Join(os.Remove(root), scribble(blob)) },
		"root gone, blob cut":         func() error { return errors.Join(os.Remove(root), os.Truncate(blob, 3)) },
		"record empty":                func() error { return os.Truncate(s.manifestPath(img.Digest), 0) },
		"reference garbage":           func() error { return os.WriteFile(s.refPath(ref), []byte("{"), 0o600) },
		"reference without an image":  func() error { return os.Remove(s.manifestPath(img.Digest)) },
		"reference to somewhere else": func() error { return os.WriteFile(s.refPath(ref), []byte(`{"digest":"../../x"}`), 0o600) },
		"partial file, wrong content": func() error {
			return errors.Join(os.Remove(root), os.Remove(blob), os.WriteFile(blob+partSuffix, bytes.Repeat([]byte{7}, 9000), 0o600))
		},
		"partial file, too long": func() error {
			return errors.Join(os.Remove(root), os.Remove(blob), os.WriteFile(blob+partSuffix, bytes.Repeat([]byte{7}, 1<<20), 0o600))
		},
		"partial root": func() error {
			return errors.Join(os.Remove(root), os.WriteFile(root+partSuffix, bytes.Repeat([]byte{7}, 1<<20), 0o600))
		},
	} {
		os.Chmod(root, 0o600)
		os.Chmod(blob, 0o600)
		if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.HasPrefix(name, "root") {
			if l, err := img.Acquire(); !errors.Is(err, ErrImageNotFound) {
				l.Close()
				t.Errorf("%s: acquired all the same (%v)", name, err)
			}
		}
		got, err := s.Pull(t.Context(), ref, PullOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(content(t, got), layer) {
			t.Errorf("%s: wrong root", name)
		}
		if left := leftovers(t, s); left != nil {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
}

// TestCancel cancels at many moments; the next pull succeeds.
func TestCancel(t *testing.T) {
	reg := newRegistry(t)
	layer := randomTar(t, 4<<20)
	ref := reg.push(t, "app", imageOf(t, layer, randomTar(t, 1<<20)))
	s := newStore(t, t.TempDir())
	cause := errors.New("enough")
	for n := range 40 {
		ctx, cancel := context.WithCancelCause(t.Context())
		count := 0
		_, err := s.Pull(ctx, ref, PullOptions{Progress: func(e Event) {
			if count++; count > n && e.Kind != EventComplete {
				cancel(cause)
			}
		}})
		cancel(nil)
		if err == nil {
			if n < 2 {
				t.Error("not cancelled")
			}
			break
		}
		if !errors.Is(err, cause) || errors.Is(err, ErrImagePull) {
			t.Fatalf("cancelled after %d events: %v", n, err)
		}
		if got, _ := filepath.Glob(s.path(rootsDir, "*")); len(got) > 0 {
			t.Fatalf("left behind: %v", got)
		}
	}
	img, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(content(t, img), layer) {
		t.Error("wrong root")
	}
	if left := leftovers(t, s); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestInvalid(t *testing.T) {
	s := newStore(t, t.TempDir())
	for name, tc := range map[string]struct {
		ref  string
		o    PullOptions
		want error
	}{
		"empty":         {"", PullOptions{}, ErrInvalidReference},
		"upper case":    {"Debian", PullOptions{}, ErrInvalidReference},
		"a URL":         {"https://registry.test/x", PullOptions{}, ErrInvalidReference},
		"bad digest":    {"x@sha256:12", PullOptions{}, ErrInvalidReference},
		"digest alone":  {"sha256:12", PullOptions{}, ErrInvalidReference},
		"other digest":  {"x@sha512:" + strings.Repeat("a", 128), PullOptions{}, ErrInvalidReference},
		"long":          {strings.Repeat("a/", 1000), PullOptions{}, ErrInvalidReference},
		"control":       {"a\x1b[31m", PullOptions{}, ErrInvalidReference},
		"user only":     {"registry.test/x", PullOptions{Username: "u"}, ErrInvalidOptions},
		"password only": {"registry.test/x", PullOptions{Password: "hunter2"}, ErrInvalidOptions},
		"policy":        {"registry.test/x", PullOptions{Policy: 9}, ErrInvalidOptions},
		"certificate":   {"registry.test/x", PullOptions{CACerts: [][]byte{[]byte("x")}}, ErrInvalidOptions},
		"unknown":       {"sha256:" + strings.Repeat("a", 64), PullOptions{}, ErrImageNotFound},
	} {
		_, err := s.Pull(t.Context(), tc.ref, tc.o)
		var e *Error
		if !errors.Is(err, tc.want) || !errors.As(err, &e) || strings.ContainsRune(err.Error()[len("image pull ")+len(tc.ref):], 0x1b) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(""); !errors.Is(err, ErrInvalidOptions) {
		t.Error(err)
	}
}

func isBlob(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }
