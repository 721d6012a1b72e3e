package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/rootfs/layer"
)

var userCache string

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	userCache, _ = os.UserCacheDir() // before HOME changes
	// No credentials of whoever runs the tests.
	dir, err := os.MkdirTemp("", "oci-test-")
	if err != nil {
		panic(err)
	}
	for _, v := range []string{"HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		os.Setenv(v, dir)
	}
	os.Unsetenv("REGISTRY_AUTH_FILE")
	code := m.Run()
	os.RemoveAll(dir)
	if code == 0 {
		http.DefaultClient.CloseIdleConnections()
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// concat is a converter whose result shows what it was given.
func concat(ctx context.Context, layers []layer.Layer, out *os.File, _ layer.Options) (layer.Stats, error) {
	for i, l := range layers {
		r, err := l.Open(ctx)
		if err != nil {
			return layer.Stats{}, &layer.Error{Layer: i, Err: err}
		}
		h := sha256.New()
		_, err = io.Copy(io.MultiWriter(out, h), r)
		r.Close()
		if err == nil && fmt.Sprintf("sha256:%x", h.Sum(nil)) != l.DiffID {
			err = layer.ErrDigest
		}
		if err != nil {
			return layer.Stats{}, &layer.Error{Layer: i, Err: err}
		}
	}
	return layer.Stats{}, nil
}

// newStore opens a store with a quick converter and short pauses.
func newStore(t testing.TB, home string) *Store {
	t.Helper()
	s, err := Open(home)
	if err != nil {
		t.Fatal(err)
	}
	s.convert = concat
	s.backoff = func(int) time.Duration { return time.Millisecond }
	return s
}

// layerTar is a layer's tar of files with the given contents.
func layerTar(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content)
	}
	w.Close()
	return b.Bytes()
}

// randomTar is a tar of one file that does not compress.
func randomTar(t testing.TB, size int) []byte {
	b := make([]byte, size)
	rand.Read(b)
	return layerTar(t, map[string]string{"random": string(b)})
}

func pack(t testing.TB, how string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch how {
	case "":
		return b
	case "gzip":
		w := gzip.NewWriter(&out)
		w.Write(b)
		w.Close()
	case "zstd", "zstd -19": // the latter with the largest window that our writer has by itself
		level := zstd.SpeedDefault
		if how != "zstd" {
			level = zstd.SpeedBestCompression
		}
		w, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(level))
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		w.Close()
	}
	return out.Bytes()
}

// layerOf is a layer for go-containerregistry with the DiffID of the plain tar.
type packedLayer struct {
	v1.Layer
	diff v1.Hash
}

func (l packedLayer) DiffID() (v1.Hash, error) { return l.diff, nil }

func layerOf(t testing.TB, plain []byte, how string, mt types.MediaType) v1.Layer {
	t.Helper()
	diff, err := v1.NewHash(digestOf(plain))
	if err != nil {
		t.Fatal(err)
	}
	return packedLayer{static.NewLayer(pack(t, how, plain), mt), diff}
}

// imageOf makes an image of gzip layers.
func imageOf(t testing.TB, plain ...[]byte) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, p := range plain {
		img = appendLayer(t, img, layerOf(t, p, "gzip", types.OCILayer))
	}
	return withConfig(t, img, v1.Config{Cmd: []string{"/bin/true"}, Env: []string{"A=1", "broken"}, WorkingDir: "work", User: "nobody",
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "443/tcp": {}}, Labels: map[string]string{"k": "v"}})
}

func appendLayer(t testing.TB, img v1.Image, l v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(img, l)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func withConfig(t testing.TB, img v1.Image, c v1.Config) v1.Image {
	t.Helper()
	f, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	f = f.DeepCopy()
	f.Config, f.OS, f.Architecture = c, "linux", "amd64"
	if img, err = mutate.ConfigFile(img, f); err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t testing.TB, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// fakeRegistry is go-containerregistry's registry with whatever a test puts in
// front of it.
type fakeRegistry struct {
	*httptest.Server
	host string // host:port

	mu       sync.Mutex
	before   func(w http.ResponseWriter, r *http.Request) bool // true: answered
	requests []string                                          // method, path and range
}

func newRegistry(t testing.TB) *fakeRegistry { return startRegistry(t, false) }

func startRegistry(t testing.TB, tls bool) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{}
	inner := ggcr.New(ggcr.Logger(nopLogger))
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		before := f.before
		f.mu.Unlock()
		if before == nil || !before(w, r) {
			inner.ServeHTTP(w, r)
		}
	})
	if tls {
		f.Server = httptest.NewUnstartedServer(h)
		f.Server.Config.ErrorLog = nopLogger
		f.StartTLS()
	} else {
		f.Server = httptest.NewServer(h)
	}
	f.host = f.Listener.Addr().String()
	t.Cleanup(f.Close)
	return f
}

// intercept puts a handler in front.
func (f *fakeRegistry) intercept(h func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = h
}

// count counts requests that contain the text.
func (f *fakeRegistry) count(text string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.Contains(r, text) {
			n++
		}
	}
	return n
}

func (f *fakeRegistry) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

// push stores an image or an index under a name and gives its reference.
func (f *fakeRegistry) push(t testing.TB, repo string, what any) string {
	t.Helper()
	ref, err := name.ParseReference(f.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	tr := remote.WithTransport(f.Client().Transport)
	switch v := what.(type) {
	case v1.Image:
		err = remote.Write(ref, v, tr)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, v, tr)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.forget()
	return ref.Name()
}

// content reads an image's root.
func content(t testing.TB, img *Image) []byte {
	t.Helper()
	l, err := img.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := io.ReadAll(l.File)
	if err != nil || int64(len(b)) != l.Size {
		t.Fatalf("%d bytes of %d, %v", len(b), l.Size, err)
	}
	return b
}

// leftovers lists files of a store that should not be there after an operation.
func leftovers(t testing.TB, s *Store) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{".", refsDir, manifestsDir, blobsDir, rootsDir} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), partSuffix) || strings.HasPrefix(e.Name(), tempPrefix) {
				all = append(all, dir+"/"+e.Name())
			}
		}
	}
	return all
}

func entries(t testing.TB, s *Store, dir string) int {
	t.Helper()
	e, err := os.ReadDir(s.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
