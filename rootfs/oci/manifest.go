package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxIndexDepth bounds indexes that lead to indexes.
const maxIndexDepth = 4

const (
	wantOS   = "linux"
	wantArch = "amd64"
)

// resolved is an image whose layers are not there yet.
type resolved struct {
	image    Image // without references, times and root
	manifest []byte
	config   []byte
	layers   []v1.Descriptor // as the manifest has them, each with its size
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// resolve finds the image for linux/amd64 that id leads to. cached, if not nil,
// may know the manifest's image already; resolve then returns with that alone.
func (s *Store) resolve(ctx context.Context, src source, id string, cached func(digest string) *Image) (*resolved, *Image, error) {
	index := ""
	for depth := 0; ; depth++ {
		body, mediaType, err := s.getManifest(ctx, src, id)
		if err != nil {
			return nil, nil, err
		}
		digest := digestOf(body)
		kind, err := kindOf(body, mediaType)
		if err != nil {
			return nil, nil, err
		}
		if kind.IsImage() {
			if img := cached(digest); img != nil {
				img.IndexDigest = index
				return nil, img, nil
			}
			r, err := s.readManifest(ctx, src, body, digest)
			if err != nil {
				return nil, nil, err
			}
			r.image.IndexDigest = index
			return r, nil, nil
		}
		if depth == maxIndexDepth {
			return nil, nil, fail(ErrInvalidImage, "more than %d indexes in each other", maxIndexDepth)
		}
		if index == "" {
			index = digest
		}
		if id, err = choose(body); err != nil {
			return nil, nil, err
		}
	}
}

// getManifest fetches a manifest and checks it against its digest, when id is one.
func (s *Store) getManifest(ctx context.Context, src source, id string) (body []byte, mediaType string, err error) {
	err = s.retry(ctx, func() error {
		body, mediaType, err = src.manifest(ctx, id)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if len(body) > MaxManifest {
		return nil, "", fail(ErrLimit, "a manifest of more than %d bytes", MaxManifest)
	}
	if strings.HasPrefix(id, "sha256:") && digestOf(body) != id {
		return nil, "", fail(ErrDigest, "manifest %s has the digest %s", id, digestOf(body))
	}
	return body, mediaType, nil
}

// kindOf tells an index from an image's manifest. The document's own media type
// goes first, because it is covered by the digest; old OCI documents have none.
func kindOf(body []byte, mediaType string) (types.MediaType, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", fail(ErrInvalidImage, "manifest (content type %q): %s", clean(mediaType), clean(err.Error()))
	}
	if doc.SchemaVersion == 1 || types.MediaType(mediaType).IsSchema1() {
		return "", fail(ErrUnsupportedImage, "manifest of Docker's schema 1, which has been obsolete since 2017")
	}
	kind := doc.MediaType
	if kind == "" {
		kind = types.MediaType(mediaType)
	}
	if !kind.IsIndex() && !kind.IsImage() && doc.MediaType == "" {
		switch { // the registry does not say either
		case doc.Manifests != nil && doc.Config == nil:
			kind = types.OCIImageIndex
		case doc.Config != nil && doc.Manifests == nil:
			kind = types.OCIManifestSchema1
		}
	}
	// A document must not be one thing by its type and another by its content.
	if kind.IsIndex() && doc.Manifests != nil && doc.Layers == nil || kind.IsImage() && doc.Config != nil && doc.Manifests == nil {
		return kind, nil
	}
	if kind.IsIndex() || kind.IsImage() {
		return "", fail(ErrInvalidImage, "manifest contradicts its media type %q", clean(string(kind)))
	}
	return "", fail(ErrUnsupportedImage, "neither image nor index but %q", clean(string(kind)))
}

// choose picks the manifest for linux/amd64 from an index.
func choose(body []byte) (string, error) {
	var idx v1.IndexManifest
	if err := json.Unmarshal(body, &idx); err != nil {
		return "", fail(ErrInvalidImage, "index: %s", clean(err.Error()))
	}
	var best *v1.Descriptor
	var others []string
	for i := range idx.Manifests {
		d := &idx.Manifests[i]
		if !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		p := d.Platform
		switch {
		case p == nil: // its configuration will tell
			if best == nil {
				best = d
			}
		case p.OS == wantOS && p.Architecture == wantArch:
			// No variant means the baseline, which runs everywhere.
			if best == nil || best.Platform == nil || p.Variant == "" && best.Platform.Variant != "" {
				best = d
			}
		case p.OS != "unknown":
			others = append(others, clean(p.OS+"/"+p.Architecture))
		}
	}
	if best == nil {
		if len(others) > 10 {
			others = append(others[:10], "…")
		}
		return "", fail(ErrUnsupportedImage, "there is no %s/%s among its platforms (%s)", wantOS, wantArch, strings.Join(others, ", "))
	}
	return best.Digest.String(), checkDigest(best.Digest.String())
}

// readManifest parses an image's manifest and fetches its configuration.
func (s *Store) readManifest(ctx context.Context, src source, body []byte, digest string) (*resolved, error) {
	m, err := parseManifest(body)
	if err != nil {
		return nil, err
	}
	r := &resolved{manifest: body, layers: m.Layers}
	if r.config, err = s.getSmallBlob(ctx, src, m.Config); err != nil {
		return nil, err
	}
	c, err := parseConfig(r.config)
	if err != nil {
		return nil, err
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fail(ErrInvalidImage, "%d layers, but the configuration has %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	r.image = Image{Digest: digest, ConfigDigest: m.Config.Digest.String(), Created: c.created(), Config: c.config()}
	r.image.Size = int64(len(body)) + int64(len(r.config))
	for i, l := range m.Layers {
		r.image.Size += l.Size
		r.image.Layers = append(r.image.Layers, Layer{Digest: l.Digest.String(), DiffID: c.RootFS.DiffIDs[i], MediaType: string(l.MediaType), Size: l.Size})
	}
	return r, nil
}

// parseManifest checks everything that is used of an image's manifest.
func parseManifest(body []byte) (*v1.Manifest, error) {
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fail(ErrInvalidImage, "manifest: %s", clean(err.Error()))
	}
	if !m.Config.MediaType.IsConfig() {
		return nil, fail(ErrUnsupportedImage, "not a container image but %q", clean(string(m.Config.MediaType)))
	}
	if m.Config.Size > MaxConfig {
		return nil, fail(ErrLimit, "a configuration of %d bytes, more than %d", m.Config.Size, MaxConfig)
	}
	if len(m.Layers) > MaxLayers {
		return nil, fail(ErrLimit, "%d layers, more than %d", len(m.Layers), MaxLayers)
	}
	total := int64(0)
	for i, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := checkDigest(d.Digest.String()); err != nil {
			return nil, err
		}
		if d.Size < 0 {
			return nil, fail(ErrInvalidImage, "%s has a negative size", d.Digest)
		}
		if d.Size > MaxLayer {
			return nil, fail(ErrLimit, "a layer of %d bytes, more than %d", d.Size, int64(MaxLayer))
		}
		// At most MaxLayers+1 sizes of at most MaxLayer: this cannot overflow.
		if total += d.Size; total > MaxImage {
			return nil, fail(ErrLimit, "layers of more than %d bytes", int64(MaxImage))
		}
		if i > 0 && !isLayerType(d.MediaType) {
			return nil, fail(ErrUnsupportedImage, "layer of type %q", clean(string(d.MediaType)))
		}
		for _, e := range m.Layers[:max(0, i-1)] {
			if i > 0 && e.Digest == d.Digest && e.Size != d.Size {
				return nil, fail(ErrInvalidImage, "%s has two sizes", d.Digest)
			}
		}
	}
	return &m, nil
}

// dockerLayerZstd is not in the library's list.
const dockerLayerZstd types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"

func isLayerType(m types.MediaType) bool {
	return m.IsLayer() && m != types.DockerForeignLayer || m == dockerLayerZstd
}

// getSmallBlob fetches a configuration.
func (s *Store) getSmallBlob(ctx context.Context, src source, d v1.Descriptor) ([]byte, error) {
	var body []byte
	err := s.retry(ctx, func() error {
		rc, _, err := src.blob(ctx, d, 0)
		if err != nil {
			return err
		}
		defer rc.Close()
		var buf bytes.Buffer
		if _, err := buf.ReadFrom(&cappedReader{rc, d.Size}); err != nil {
			return broken(ctx, err)
		}
		if int64(buf.Len()) < d.Size {
			return &transient{err: fail(ErrDigest, "%s ends after %d of %d bytes", d.Digest, buf.Len(), d.Size)}
		}
		body = buf.Bytes()
		return nil
	})
	if err == nil && digestOf(body) != d.Digest.String() {
		return nil, fail(ErrDigest, "%s has the digest %s", d.Digest, digestOf(body))
	}
	return body, err
}

// configFile is the part of an image's configuration that is used.
type configFile struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Created      any    `json:"created"`
	Config       struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   argv                `json:"Entrypoint"`
		Cmd          argv                `json:"Cmd"`
		Shell        argv                `json:"Shell"`
		Volumes      map[string]struct{} `json:"Volumes"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
		StopSignal   string              `json:"StopSignal"`
	} `json:"config"`
	RootFS struct {
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// argv is a list of strings; very old images have a single string instead.
type argv []string

func (a *argv) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil && string(b) != "null" {
		*a = argv{one}
		return nil
	}
	var list []string
	err := json.Unmarshal(b, &list)
	*a = list
	return err
}

func parseConfig(b []byte) (*configFile, error) {
	c := &configFile{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fail(ErrInvalidImage, "configuration: %s", clean(err.Error()))
	}
	if c.OS != "" && c.OS != wantOS || c.Architecture != "" && c.Architecture != wantArch {
		return nil, fail(ErrUnsupportedImage, "it is for %s, only %s/%s runs here", clean(c.OS+"/"+c.Architecture), wantOS, wantArch)
	}
	if len(c.RootFS.DiffIDs) > MaxLayers {
		return nil, fail(ErrLimit, "%d layers, more than %d", len(c.RootFS.DiffIDs), MaxLayers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return nil, err
		}
	}
	p := &c.Config
	for _, list := range [][]string{{p.User, p.WorkingDir, p.StopSignal}, p.Env, p.Entrypoint, p.Cmd, p.Shell} {
		for _, v := range list {
			if strings.ContainsRune(v, 0) {
				return nil, fail(ErrInvalidImage, "configuration: a string with a NUL byte")
			}
		}
	}
	return c, nil
}

func (c *configFile) created() time.Time {
	s, _ := c.Created.(string)
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{} // it is for people only
	}
	return t.UTC()
}

func (c *configFile) config() Config {
	p := &c.Config
	out := Config{
		Entrypoint: p.Entrypoint, Cmd: p.Cmd, Shell: p.Shell, User: p.User, Labels: p.Labels, StopSignal: p.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(p.ExposedPorts)),
		Volumes:      slices.Sorted(maps.Keys(p.Volumes)),
	}
	for _, kv := range p.Env {
		if k, _, ok := strings.Cut(kv, "="); ok && k != "" {
			out.Env = append(out.Env, kv)
		}
	}
	if p.WorkingDir != "" {
		out.Workdir = path.Join("/", p.WorkingDir)
	}
	return out
}

// rootKey names the root file system that layers make: the same layers in the
// same order, whatever else the image says, converted by the same code.
func rootKey(layers []Layer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "hutch root, converter %d\n", converterVersion)
	for _, l := range layers {
		b.WriteString(l.DiffID + "\n")
	}
	return hexOf(digestOf([]byte(b.String())))
}

// cappedReader fails when there is more than n bytes.
type cappedReader struct {
	r io.Reader
	n int64
}

func (c *cappedReader) Read(p []byte) (int, error) {
	if int64(len(p)) > c.n+1 {
		p = p[:c.n+1]
	}
	n, err := c.r.Read(p)
	if c.n -= int64(n); c.n < 0 {
		return 0, fail(ErrLimit, "content is longer than its manifest says")
	}
	return n, err
}
