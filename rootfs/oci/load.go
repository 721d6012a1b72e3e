package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	layoutFile   = "oci-layout"
	indexFile    = "index.json"
	dockerFile   = "manifest.json"
	annotName    = "org.opencontainers.image.ref.name"
	annotFull    = "io.containerd.image.name"
	maxInArchive = 1000 // images
)

// Load takes the images of an archive into the store and converts them: an OCI
// layout, as a directory or as a tar, or a tar that docker save wrote. Tars may be compressed
// with gzip or zstd. Which kind it is shows in the files oci-layout, index.json and
// manifest.json; names of files do not matter. Of images for several platforms
// the one for linux/amd64 is taken. References come from the archive; an image
// that has none there is known by its digest only.
func (s *Store) Load(ctx context.Context, name string, o LoadOptions) ([]*Image, error) {
	a, err := s.openArchive(ctx, name)
	if err != nil {
		return nil, opError("load", name, err)
	}
	defer a.Close()
	imgs, err := s.load(ctx, a, o)
	return imgs, opError("load", name, err)
}

// LoadFrom is Load of a tar that r delivers. It is kept on disk meanwhile.
func (s *Store) LoadFrom(ctx context.Context, r io.Reader, o LoadOptions) ([]*Image, error) {
	a, err := s.spool(ctx, r)
	if err != nil {
		return nil, opError("load", "", err)
	}
	defer a.Close()
	imgs, err := s.load(ctx, a, o)
	return imgs, opError("load", "", err)
}

// candidate is an image of an archive.
type candidate struct {
	src  source
	id   string   // digest of its manifest or index
	refs []string // may be empty
	// find gives the image if it is in the store already, and only looking inside
	// the archive would tell its digest.
	find func() *Image
}

func (s *Store) load(ctx context.Context, a archive, o LoadOptions) ([]*Image, error) {
	lock, err := s.lockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer s.tidy()
	defer lock.Close()
	list, err := s.candidates(a)
	if err != nil {
		return nil, err
	}
	if o.Ref != "" {
		if len(list) != 1 {
			return nil, fail(ErrInvalidOptions, "Ref names one image, but the archive holds %d", len(list))
		}
		list[0].refs = []string{o.Ref}
	}
	names := make([][]*reference, len(list))
	for i, c := range list { // before anything is done
		for _, n := range c.refs {
			r, err := parseRef(n, false)
			if err == nil && r.name == nil {
				err = fail(ErrInvalidReference, "%q is a digest, not a name", n)
			}
			if err != nil {
				return nil, err
			}
			names[i] = append(names[i], r)
		}
	}
	var imgs []*Image
	var skipped error
	for i, c := range list {
		img, err := s.loadOne(ctx, c, names[i], o)
		if errors.Is(err, ErrUnsupportedImage) {
			skipped = err // the archive may hold images for other platforms as well
			continue
		}
		if err != nil {
			return imgs, err
		}
		imgs = append(imgs, img)
	}
	if len(imgs) == 0 {
		return nil, skipped
	}
	return imgs, nil
}

func (s *Store) loadOne(ctx context.Context, c candidate, names []*reference, o LoadOptions) (*Image, error) {
	var first *reference
	short := c.id
	if len(names) > 0 {
		first = names[0]
		short = first.short
	}
	p := newProgress(o.Progress, short)
	p.emit(Event{Kind: EventResolving})
	var img *Image
	if c.find != nil {
		img = c.find()
	}
	if img != nil {
		if err := s.name(img, first); err != nil {
			return nil, err
		}
		p.cached(img)
	} else {
		var err error
		if img, err = s.ingest(ctx, c.src, c.id, first, p); err != nil {
			return nil, err
		}
	}
	for _, r := range names[min(1, len(names)):] {
		other := *img
		if err := s.name(&other, r); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// candidates tells which kind of archive it is and what it holds.
func (s *Store) candidates(a archive) ([]candidate, error) {
	index, err := readAll(a, indexFile, MaxManifest)
	if err == nil {
		if _, err := readAll(a, layoutFile, MaxManifest); err != nil {
			return nil, fail(ErrInvalidImage, "%s without %s", indexFile, layoutFile)
		}
		return layoutCandidates(a, index)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	manifest, err := readAll(a, dockerFile, MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(ErrInvalidImage, "neither an OCI layout nor an archive of docker save: it holds no %s and no %s", indexFile, dockerFile)
	}
	if err != nil {
		return nil, err
	}
	return s.dockerCandidates(a, manifest)
}

func layoutCandidates(a archive, index []byte) ([]candidate, error) {
	var idx v1.IndexManifest
	if err := json.Unmarshal(index, &idx); err != nil {
		return nil, fail(ErrInvalidImage, "%s: %s", indexFile, clean(err.Error()))
	}
	if len(idx.Manifests) == 0 || len(idx.Manifests) > maxInArchive {
		return nil, fail(ErrInvalidImage, "%s lists %d images, want 1 to %d", indexFile, len(idx.Manifests), maxInArchive)
	}
	var list []candidate
	var platforms v1.IndexManifest // entries that are one image for several platforms
	for _, d := range idx.Manifests {
		if err := checkDigest(d.Digest.String()); err != nil {
			return nil, err
		}
		ref := d.Annotations[annotFull]
		if n := d.Annotations[annotName]; ref == "" && strings.ContainsAny(n, ":/") {
			ref = n // otherwise it is a tag without a name
		}
		if ref == "" && d.Platform != nil {
			platforms.Manifests = append(platforms.Manifests, d)
			continue
		}
		c := candidate{src: layoutSource{a}, id: d.Digest.String()}
		if ref != "" {
			c.refs = []string{ref}
		}
		list = append(list, c)
	}
	if len(platforms.Manifests) > 0 {
		b, err := json.Marshal(platforms)
		if err != nil {
			return nil, err
		}
		id, err := choose(b)
		if err != nil {
			return nil, err
		}
		list = append(list, candidate{src: layoutSource{a}, id: id})
	}
	return list, nil
}

// layoutSource is the blobs directory of an OCI layout.
type layoutSource struct{ a archive }

func (l layoutSource) manifest(_ context.Context, id string) ([]byte, string, error) {
	b, err := readAll(l.a, path.Join(blobsDir, hexOf(id)), MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		err = fail(ErrInvalidImage, "the archive lacks %s", id)
	}
	return b, "", err
}

func (l layoutSource) blob(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	return openBlob(l.a, path.Join(blobsDir, d.Digest.Hex), d, offset)
}

func openBlob(a archive, name string, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	f, err := a.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = fail(ErrInvalidImage, "the archive lacks %s", d.Digest)
	}
	if err != nil {
		return nil, 0, err
	}
	if f.Size() != d.Size {
		f.Close()
		return nil, 0, fail(ErrDigest, "%s has %d bytes, its manifest says %d", d.Digest, f.Size(), d.Size)
	}
	return section{io.NewSectionReader(f, offset, f.Size()-offset), f}, offset, nil
}

type section struct {
	io.Reader
	io.Closer
}

// dockerManifest is an entry of manifest.json.
type dockerManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

func (s *Store) dockerCandidates(a archive, manifest []byte) ([]candidate, error) {
	var entries []dockerManifest
	if err := json.Unmarshal(manifest, &entries); err != nil {
		return nil, fail(ErrInvalidImage, "%s: %s", dockerFile, clean(err.Error()))
	}
	if len(entries) == 0 || len(entries) > maxInArchive {
		return nil, fail(ErrInvalidImage, "%s lists %d images, want 1 to %d", dockerFile, len(entries), maxInArchive)
	}
	var list []candidate
	for _, e := range entries {
		if len(e.Layers) > MaxLayers {
			return nil, fail(ErrLimit, "%d layers, more than %d", len(e.Layers), MaxLayers)
		}
		config, err := readAll(a, e.Config, MaxConfig)
		if err != nil {
			return nil, fail(ErrInvalidImage, "configuration %s: %w", clean(e.Config), err)
		}
		src := &dockerSource{a: a, entry: e, config: config}
		list = append(list, candidate{src: src, refs: e.RepoTags, find: func() *Image { return s.byConfig(digestOf(config)) }})
	}
	return list, nil
}

// byConfig finds a usable image of the same configuration, which has the same
// layers, because the configuration holds their digests.
func (s *Store) byConfig(digest string) *Image {
	all, err := s.digests()
	if err != nil {
		return nil
	}
	for _, d := range all {
		if img, err := s.readImage(d); err == nil && img.ConfigDigest == digest {
			if img, err := s.lookup(&reference{full: d, digest: d}); err == nil && s.haveBlobs(img) {
				return img
			}
		}
	}
	return nil
}

// dockerSource presents an image of docker save as if it came from a registry.
// Such an archive has no manifest and no digests of its layers, so they are made up.
type dockerSource struct {
	a      archive
	entry  dockerManifest
	config []byte
	files  map[string]string // digest → name in the archive
}

func (d *dockerSource) manifest(ctx context.Context, id string) ([]byte, string, error) {
	if id != "" {
		return nil, "", fmt.Errorf("unexpected manifest %s", id)
	}
	hash, err := v1.NewHash(digestOf(d.config))
	if err != nil {
		return nil, "", err
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
		Config: v1.Descriptor{MediaType: types.DockerConfigJSON, Size: int64(len(d.config)), Digest: hash},
		Layers: []v1.Descriptor{},
	}
	d.files = map[string]string{}
	for _, name := range d.entry.Layers {
		desc, err := d.describe(ctx, name)
		if err != nil {
			return nil, "", err
		}
		d.files[desc.Digest.String()] = name
		m.Layers = append(m.Layers, desc)
	}
	b, err := json.Marshal(m)
	return b, string(m.MediaType), err
}

// describe reads a layer for its digest.
func (d *dockerSource) describe(ctx context.Context, name string) (v1.Descriptor, error) {
	desc := v1.Descriptor{MediaType: types.DockerUncompressedLayer}
	f, err := d.a.open(name)
	if err != nil {
		return desc, fail(ErrInvalidImage, "layer %s: %w", clean(name), err)
	}
	defer f.Close()
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err == nil && isGzip(magic[:]) {
		desc.MediaType = types.DockerLayer
	} else if isZstd(magic[:]) {
		desc.MediaType = dockerLayerZstd
	}
	h := sha256.New()
	if desc.Size, err = io.Copy(h, &ctxReader{ctx, io.NewSectionReader(f, 0, f.Size())}); err != nil {
		return desc, err
	}
	desc.Digest = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	return desc, nil
}

func (d *dockerSource) blob(_ context.Context, desc v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	if desc.Digest.String() == digestOf(d.config) {
		return io.NopCloser(strings.NewReader(string(d.config[offset:]))), offset, nil
	}
	return openBlob(d.a, d.files[desc.Digest.String()], desc, offset)
}
