package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layoutOf writes an OCI layout with the given entries.
func layoutOf(t *testing.T, add func(p layout.Path) error) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = add(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tarOf packs a directory.
func tarOf(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

func write(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadLayout(t *testing.T) {
	plain := randomTar(t, 50<<10)
	img := imageOf(t, plain)
	named := func(annotations map[string]string) layout.Option { return layout.WithAnnotations(annotations) }
	linux := layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"})
	arm := layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "arm64"})
	other := imageOf(t, randomTar(t, 100))
	for name, tc := range map[string]struct {
		add func(p layout.Path) error
		ref string
		o   LoadOptions
	}{
		"unnamed": {func(p layout.Path) error { return p.AppendImage(img) }, "", LoadOptions{}},
		"full name": {func(p layout.Path) error {
			return p.AppendImage(img, named(map[string]string{annotName: "registry.test/x:1"}))
		}, "registry.test/x:1", LoadOptions{}},
		"containerd's": {func(p layout.Path) error {
			return p.AppendImage(img, named(map[string]string{annotName: "1", annotFull: "registry.test/y:1"}))
		}, "registry.test/y:1", LoadOptions{}},
		"tag only":   {func(p layout.Path) error { return p.AppendImage(img, named(map[string]string{annotName: "v1"})) }, "", LoadOptions{}},
		"name given": {func(p layout.Path) error { return p.AppendImage(img) }, "mine:2", LoadOptions{Ref: "mine:2"}},
		"platforms":  {func(p layout.Path) error { return errors.Join(p.AppendImage(other, arm), p.AppendImage(img, linux)) }, "", LoadOptions{}},
		"an index in it": {func(p layout.Path) error {
			return p.AppendIndex(mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}}))
		}, "", LoadOptions{}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := layoutOf(t, tc.add)
			packed := tarOf(t, dir)
			for kind, path := range map[string]string{"directory": dir, "tar": write(t, packed), "tar.gz": write(t, pack(t, "gzip", packed)), "tar.zst": write(t, pack(t, "zstd", packed))} {
				s := newStore(t, t.TempDir())
				var tr trace
				o := tc.o
				o.Progress = tr.add
				for range 2 {
					got, err := s.Load(t.Context(), path, o)
					if err != nil {
						t.Fatalf("%s: %v", kind, err)
					}
					if len(got) != 1 || got[0].Digest != digest(t, img) || got[0].Ref != tc.ref || !bytes.Equal(content(t, got[0]), plain) {
						t.Errorf("%s: %+v", kind, got)
					}
				}
				if n := len(tr.events); tr.events[n-1].Kind != EventComplete || !tr.events[n-2].Cached {
					t.Errorf("%s: the second time it was not cached: %v", kind, tr.kinds)
				}
				if left := leftovers(t, s); left != nil {
					t.Errorf("%s: left behind: %v", kind, left)
				}
			}
			s := newStore(t, t.TempDir())
			if got, err := s.LoadFrom(t.Context(), bytes.NewReader(pack(t, "gzip", packed)), tc.o); err != nil || len(got) != 1 {
				t.Errorf("from a stream: %v", err)
			}
		})
	}
}

func TestLoadDocker(t *testing.T) {
	lower, upper := randomTar(t, 40<<10), randomTar(t, 30<<10)
	img := appendLayer(t, empty.Image, layerOf(t, lower, "gzip", types.DockerLayer))
	img = withConfig(t, appendLayer(t, img, layerOf(t, upper, "gzip", types.DockerLayer)), v1.Config{Cmd: []string{"x"}})
	raw, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config := digestOf(raw)

	// go-containerregistry's writer: compressed layers, two names.
	first, second := name.MustParseReference("registry.test/a:1"), name.MustParseReference("registry.test/b:2")
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := tarball.MultiRefWriteToFile(path, map[name.Reference]v1.Image{first: img, second: img}); err != nil {
		t.Fatal(err)
	}
	// Docker's own before version 25: plain layers, equal ones as links.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	file := func(name string, content []byte) {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		w.Write(content)
	}
	file("l1/layer.tar", lower)
	w.WriteHeader(&tar.Header{Name: "l0/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../l1/layer.tar"})
	file("l2/layer.tar", upper)
	file("config.json", raw)
	file("./manifest.json", mustJSON([]dockerManifest{{Config: "config.json", RepoTags: []string{"registry.test/a:1", "registry.test/b:2"}, Layers: []string{"l0/layer.tar", "l2/layer.tar"}}}))
	w.Close()

	for name, path := range map[string]string{"packed": path, "plain": write(t, b.Bytes()), "gzip": write(t, pack(t, "gzip", b.Bytes()))} {
		s := newStore(t, t.TempDir())
		for range 2 {
			got, err := s.Load(t.Context(), path, LoadOptions{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, g := range got {
				if g.ConfigDigest != config || !bytes.Equal(content(t, g), slices.Concat(lower, upper)) || cmp.Diff([]string{"x"}, g.Config.Cmd) != "" {
					t.Errorf("%s: %+v", name, g)
				}
			}
			for _, ref := range []string{"registry.test/a:1", "registry.test/b:2"} {
				if g, err := s.Get(ref); err != nil || g.ConfigDigest != config {
					t.Errorf("%s: %s: %v", name, ref, err)
				}
			}
		}
		if n := entries(t, s, manifestsDir); n != 1 {
			t.Errorf("%s: %d images", name, n)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	plain := randomTar(t, 10<<10)
	img := imageOf(t, plain)
	layer := digestOf(pack(t, "gzip", plain))
	files := func(m map[string]string) string { return write(t, layerTar(t, m)) }
	broken := func(edit func(dir string) error) string {
		dir := layoutOf(t, func(p layout.Path) error { return p.AppendImage(img) })
		blob := filepath.Join(dir, blobsDir, hexOf(layer))
		if err := os.Chmod(blob, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := edit(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	outside := filepath.Join(t.TempDir(), "outside")
	packed := pack(t, "gzip", plain)
	if err := os.WriteFile(outside, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	whole := tarOf(t, broken(func(string) error { return nil }))
	two := layoutOf(t, func(p layout.Path) error {
		return errors.Join(p.AppendImage(img), p.AppendImage(imageOf(t, randomTar(t, 10))))
	})
	for name, tc := range map[string]struct {
		path string
		o    LoadOptions
		want error
	}{
		"missing":            {filepath.Join(t.TempDir(), "x"), LoadOptions{}, fs.ErrNotExist},
		"no archive":         {write(t, []byte(strings.Repeat("not a tar ", 100))), LoadOptions{}, ErrInvalidImage},
		"empty":              {write(t, nil), LoadOptions{}, ErrInvalidImage},
		"empty directory":    {t.TempDir(), LoadOptions{}, ErrInvalidImage},
		"another tar":        {files(map[string]string{"etc/passwd": "x"}), LoadOptions{}, ErrInvalidImage},
		"cut short":          {write(t, whole[:len(whole)/2]), LoadOptions{}, ErrInvalidImage},
		"cut gzip":           {write(t, pack(t, "gzip", whole)[:5000]), LoadOptions{}, nil},
		"index alone":        {files(map[string]string{"index.json": "{}"}), LoadOptions{}, ErrInvalidImage},
		"no images":          {files(map[string]string{"index.json": `{"manifests":[]}`, "oci-layout": "{}"}), LoadOptions{}, ErrInvalidImage},
		"index not JSON":     {files(map[string]string{"index.json": `x`, "oci-layout": "{}"}), LoadOptions{}, ErrInvalidImage},
		"digest with a path": {files(map[string]string{"index.json": `{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}`, "oci-layout": "{}"}), LoadOptions{}, ErrInvalidImage},
		"docker: no config":  {files(map[string]string{"manifest.json": `[{"Config":"x","Layers":[]}]`}), LoadOptions{}, ErrInvalidImage},
		"docker: outside":    {files(map[string]string{"manifest.json": `[{"Config":"../../../../etc/passwd","Layers":[]}]`}), LoadOptions{}, ErrInvalidImage},
		"docker: bad tag":    {files(map[string]string{"manifest.json": `[{"Config":"c","RepoTags":["UPPER"],"Layers":[]}]`, "c": "{}"}), LoadOptions{}, ErrInvalidReference},
		"docker: not JSON":   {files(map[string]string{"manifest.json": `[`}), LoadOptions{}, ErrInvalidImage},
		"layer missing":      {broken(func(d string) error { return os.Remove(filepath.Join(d, blobsDir, hexOf(layer))) }), LoadOptions{}, ErrInvalidImage},
		"layer cut":          {broken(func(d string) error { return os.Truncate(filepath.Join(d, blobsDir, hexOf(layer)), 9) }), LoadOptions{}, ErrDigest},
		"layer changed": {broken(func(d string) error {
			return os.WriteFile(filepath.Join(d, blobsDir, hexOf(layer)), make([]byte, len(packed)), 0o600)
		}), LoadOptions{}, ErrDigest},
		"link to the outside": {broken(func(d string) error {
			p := filepath.Join(d, blobsDir, hexOf(layer))
			return errors.Join(os.Remove(p), os.Symlink(outside, p))
		}), LoadOptions{}, nil},
		"layer is a directory": {broken(func(d string) error {
			p := filepath.Join(d, blobsDir, hexOf(layer))
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o700))
		}), LoadOptions{}, ErrInvalidImage},
		"one name for two":  {two, LoadOptions{Ref: "x:1"}, ErrInvalidOptions},
		"a digest for name": {broken(func(string) error { return nil }), LoadOptions{Ref: "sha256:" + strings.Repeat("a", 64)}, ErrInvalidReference},
	} {
		s := newStore(t, t.TempDir())
		_, err := s.Load(t.Context(), tc.path, tc.o)
		var e *Error
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
		if n := entries(t, s, manifestsDir) + entries(t, s, refsDir) + entries(t, s, rootsDir); n != 0 {
			t.Errorf("%s: %d files left", name, n)
		}
	}
}

func TestSave(t *testing.T) {
	reg := newRegistry(t)
	plain := randomTar(t, 100<<10)
	img := imageOf(t, plain, randomTar(t, 10), plain)
	ref := reg.push(t, "app:v1", img)
	s := newStore(t, t.TempDir())
	pulled, err := s.Pull(t.Context(), ref, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "app.tar")
	if err := s.Save(t.Context(), ref, path); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := s.SaveTo(t.Context(), pulled.Digest, &stream); err != nil {
		t.Fatal(err)
	}
	other := newStore(t, t.TempDir())
	got, err := other.Load(t.Context(), path, LoadOptions{})
	if err != nil || len(got) != 1 || got[0].Ref != ref || got[0].Digest != pulled.Digest || !bytes.Equal(content(t, got[0]), content(t, pulled)) {
		t.Errorf("loaded %+v, %v", got, err)
	}
	if got, err := newStore(t, t.TempDir()).LoadFrom(t.Context(), &stream, LoadOptions{}); err != nil || got[0].Ref != "" || got[0].Digest != pulled.Digest {
		t.Errorf("loaded by digest: %+v, %v", got, err)
	}
	// Other readers.
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := tarball.ImageFromPath(path, &tag); err != nil || func() string { h, _ := i.ConfigName(); return h.String() }() != pulled.ConfigDigest {
		t.Errorf("as docker's: %v", err)
	}
	if skopeo := tool(t, "skopeo"); skopeo != "" {
		for _, transport := range []string{"oci-archive:", "docker-archive:"} {
			out, err := exec.Command(skopeo, "inspect", "--config", transport+path).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("/bin/true")) {
				t.Errorf("skopeo, %s %v: %s", transport, err, out)
			}
		}
	}

	// What is damaged is not saved.
	blob := s.blobPath(pulled.Layers[0].Digest)
	os.Chmod(blob, 0o600)
	b, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	os.WriteFile(blob, b, 0o600)
	if err := s.Save(t.Context(), ref, path); !errors.Is(err, ErrDigest) {
		t.Error(err)
	}
	if err := s.Save(t.Context(), "nobody/knows", path); !errors.Is(err, ErrImageNotFound) {
		t.Error(err)
	}
	if e, _ := os.ReadDir(dir); len(e) != 1 {
		t.Errorf("left behind: %v", e)
	}
}

// tool finds a program that tests compare with.
func tool(t testing.TB, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("HUTCH_REQUIRE_KVM") == "1" {
			t.Errorf("%s is missing: internal/ci/packages.sh installs it", name)
		} else {
			t.Logf("without %s, which is not installed", name)
		}
		return ""
	}
	return path
}

// TestSkopeo reads what skopeo writes.
func TestSkopeo(t *testing.T) {
	skopeo := tool(t, "skopeo")
	if skopeo == "" {
		t.Skip("no skopeo")
	}
	reg := newRegistry(t)
	plain := randomTar(t, 100<<10)
	ref := reg.push(t, "app:v1", imageOf(t, plain))
	dir := t.TempDir()
	for _, target := range []string{"oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/oci.tar:registry.test/x:1", "docker-archive:" + dir + "/docker.tar:registry.test/x:1"} {
		out, err := exec.Command(skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+ref, target).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		path, _, _ := strings.Cut(strings.SplitN(target, ":", 2)[1], ":")
		got, err := newStore(t, t.TempDir()).Load(t.Context(), path, LoadOptions{})
		if err != nil || len(got) != 1 || !bytes.Equal(content(t, got[0]), plain) {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func FuzzArchive(f *testing.F) {
	s := newStore(f, f.TempDir())
	add := func(m map[string]string) { f.Add(layerTar(f, m)) }
	add(map[string]string{"index.json": `{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 64) + `"}]}`, "oci-layout": "{}"})
	add(map[string]string{"manifest.json": `[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]`, "c": `{"rootfs":{"diff_ids":[]}}`, "l": "x"})
	f.Fuzz(func(t *testing.T, b []byte) {
		imgs, err := s.LoadFrom(t.Context(), io.MultiReader(bytes.NewReader(b)), LoadOptions{})
		if err == nil && len(imgs) == 0 {
			t.Error("neither image nor error")
		}
	})
}
