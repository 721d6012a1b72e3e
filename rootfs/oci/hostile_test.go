package oci

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// manifestWith is a manifest whose configuration and layers the test makes up.
func manifestWith(edit func(m *v1.Manifest)) []byte {
	h := func(c string) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(c, 64)} }
	m := &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: 10, Digest: h("a")},
		Layers: []v1.Descriptor{{MediaType: types.OCILayer, Size: 10, Digest: h("b")}},
	}
	edit(m)
	return mustJSON(m)
}

// TestHostile: whatever a registry answers, the pull fails soon, with a clear
// error, and leaves nothing.
func TestHostile(t *testing.T) {
	layer := randomTar(t, 200<<10)
	img := imageOf(t, layer)
	packed := pack(t, "gzip", layer)
	wrongDiff := appendLayer(t, empty.Image, packedLayer{layerOf(t, layer, "gzip", types.DockerLayer), v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}})
	notGzip := appendLayer(t, empty.Image, layerOf(t, layer, "", types.DockerUncompressedLayer))
	notGzip = appendLayer(t, notGzip, packedLayer{layerOf(t, []byte{0x1f, 0x8b, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7}, "", types.DockerLayer), v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}})
	arm := withConfig(t, img, v1.Config{})
	cf, _ := arm.ConfigFile()
	cf = cf.DeepCopy()
	cf.Architecture = "arm64"
	arm, _ = mutate.ConfigFile(arm, cf)
	fewer, _ := img.ConfigFile()
	fewer = fewer.DeepCopy()
	fewer.RootFS.DiffIDs = nil
	missing, _ := mutate.ConfigFile(img, fewer)

	onManifest := func(h func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			h(w, r)
			return true
		}
	}
	serve := func(mediaType types.MediaType, b []byte) func(http.ResponseWriter, *http.Request) bool {
		return onManifest(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", string(mediaType))
			w.Write(b)
		})
	}
	edited := func(edit func(m *v1.Manifest)) func(http.ResponseWriter, *http.Request) bool {
		return serve(types.OCIManifestSchema1, manifestWith(edit))
	}
	onLayer := func(h func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, digestOf(packed)) {
				return false
			}
			h(w, r)
			return true
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 64<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	self := &selfIndex{}
	for name, tc := range map[string]struct {
		img    v1.Image
		before func(http.ResponseWriter, *http.Request) bool
		want   error
		says   string
	}{
		"manifest: endless":            {img, onManifest(endless), ErrLimit, ""},
		"manifest: announced as huge":  {img, onManifest(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "99999999999") }), ErrLimit, ""},
		"manifest: empty":              {img, serve(types.OCIManifestSchema1, nil), ErrInvalidImage, ""},
		"manifest: HTML":               {img, serve("text/html", []byte("<html>sign in</html>")), ErrInvalidImage, "text/html"},
		"manifest: wrong type":         {img, serve("application/x", []byte(`{"schemaVersion":2,"mediaType":"application/\u001b[2J"}`)), ErrUnsupportedImage, "application/?[2J"},
		"manifest: index with layers":  {img, serve(types.OCIImageIndex, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[],"config":{}}`)), ErrInvalidImage, "contradicts"},
		"manifest: schema 1":           {img, serve(types.DockerManifestSchema1Signed, []byte(`{"schemaVersion":1}`)), ErrUnsupportedImage, "schema 1"},
		"manifest: a chart":            {img, edited(func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }), ErrUnsupportedImage, "helm"},
		"manifest: encrypted layer":    {img, edited(func(m *v1.Manifest) { m.Layers[0].MediaType += "+encrypted" }), ErrUnsupportedImage, "encrypted"},
		"manifest: foreign layer":      {img, edited(func(m *v1.Manifest) { m.Layers[0].MediaType = types.DockerForeignLayer }), ErrUnsupportedImage, "foreign"},
		"manifest: negative size":      {img, edited(func(m *v1.Manifest) { m.Layers[0].Size = -1 }), ErrInvalidImage, "negative"},
		"manifest: huge layer":         {img, edited(func(m *v1.Manifest) { m.Layers[0].Size = MaxLayer + 1 }), ErrLimit, ""},
		"manifest: huge sum":           {img, edited(manyLayers(20, MaxLayer)), ErrLimit, ""},
		"manifest: overflowing sum":    {img, edited(manyLayers(20, 1<<62)), ErrLimit, ""},
		"manifest: many layers":        {img, edited(manyLayers(MaxLayers+1, 1)), ErrLimit, "layers"},
		"manifest: huge configuration": {img, edited(func(m *v1.Manifest) { m.Config.Size = MaxConfig + 1 }), ErrLimit, "configuration"},
		"manifest: no configuration":   {img, edited(func(m *v1.Manifest) {}), ErrInvalidImage, "lacks"},
		"manifest: sha512":             {img, edited(func(m *v1.Manifest) { m.Layers[0].Digest = v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("b", 128)} }), ErrInvalidImage, "sha256"},
		"manifest: two sizes":          {img, edited(twoSizes), ErrInvalidImage, "two sizes"},
		"manifest: redirect loop":      {img, onManifest(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }), ErrImagePull, "redirects"},
		"index: into itself":           {img, self.serve, ErrInvalidImage, "indexes"},
		"blob: redirect loop": {img, onLayer(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}), ErrImagePull, "redirects"},
		"blob: endless":                 {img, onLayer(endless), ErrDigest, ""},
		"blob: other bytes":             {img, onLayer(func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte{1}, len(packed))) }), ErrDigest, ""},
		"blob: announced as longer":     {img, onLayer(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "99999999999") }), ErrDigest, "announces"},
		"blob: announced as shorter":    {img, onLayer(func(w http.ResponseWriter, r *http.Request) { w.Write(packed[:100]) }), ErrDigest, "announces"},
		"blob: always cut short":        {img, onLayer(func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); w.Write(packed[:100]) }), ErrNetwork, "attempts"},
		"blob: wrong range":             {img, wrongRange(packed), ErrImagePull, ""},
		"configuration: other platform": {arm, nil, ErrUnsupportedImage, "linux/arm64"},
		"configuration: fewer layers":   {missing, nil, ErrInvalidImage, "1 layers"},
		"layer: wrong uncompressed":     {wrongDiff, nil, ErrDigest, "digest mismatch"},
		"layer: broken compression":     {notGzip, nil, ErrInvalidImage, "layer 1"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := newRegistry(t)
			reg.Config.ErrorLog = nopLogger
			ref := reg.push(t, "app", tc.img)
			reg.intercept(tc.before)
			s := newStore(t, t.TempDir())
			begin := time.Now()
			_, err := s.Pull(t.Context(), ref, PullOptions{})
			if !errors.Is(err, tc.want) || !errors.Is(err, ErrImagePull) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v", err)
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("took %v", d)
			}
			if n := entries(t, s, manifestsDir) + entries(t, s, refsDir) + entries(t, s, rootsDir); n != 0 {
				t.Errorf("%d files left", n)
			}
			if _, err := s.Prune(t.Context(), PruneOptions{}); err != nil {
				t.Error(err)
			}
			if n := entries(t, s, blobsDir); n != 0 {
				t.Errorf("%d blobs left after Prune", n)
			}
		})
	}
}

func manyLayers(n int, size int64) func(*v1.Manifest) {
	return func(m *v1.Manifest) {
		m.Layers = nil
		for i := range n {
			m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.OCILayer, Size: size, Digest: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064x", i)}})
		}
	}
}

func twoSizes(m *v1.Manifest) {
	m.Layers = append(m.Layers, m.Layers[0])
	m.Layers[1].Size++
}

// selfIndex answers every request with another index.
type selfIndex struct{}

func (*selfIndex) serve(w http.ResponseWriter, r *http.Request) bool {
	if !strings.Contains(r.URL.Path, "/manifests/") {
		return false
	}
	// The deepest is empty; each one above leads to the one below.
	doc := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	docs := map[string][]byte{}
	for range maxIndexDepth + 3 {
		docs[digestOf(doc)] = doc
		doc = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","size":%d,"digest":%q}]}`, len(doc), digestOf(doc))
	}
	w.Header().Set("Content-Type", string(types.OCIImageIndex))
	if d, ok := docs[filepath.Base(r.URL.Path)]; ok {
		w.Write(d)
	} else {
		w.Write(doc)
	}
	return true
}

// wrongRange breaks off, and then continues somewhere else than it was asked to.
func wrongRange(body []byte) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digestOf(body)) {
			return false
		}
		if r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.Write(body[:1000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(body)-1, len(body)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(body[5:])
		return true
	}
}
