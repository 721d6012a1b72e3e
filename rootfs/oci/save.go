package oci

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Save writes the image that ref stands for to a new file at path: a tar of an
// OCI layout, which docker load understands as well. An existing file is replaced when
// all went well. The same image gives the same bytes.
func (s *Store) Save(ctx context.Context, ref, path string) error {
	return opError("save", ref, s.saveFile(ctx, ref, path))
}

func (s *Store) saveFile(ctx context.Context, ref, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".hutch-save-*")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := s.save(ctx, ref, f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// SaveTo is Save to a stream.
func (s *Store) SaveTo(ctx context.Context, ref string, w io.Writer) error {
	return opError("save", ref, s.save(ctx, ref, w))
}

func (s *Store) save(ctx context.Context, ref string, w io.Writer) error {
	lock, err := s.lockShared(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	img, err := s.Get(ref)
	if err != nil {
		return err
	}
	manifest, err := s.readBlob(img.Digest, MaxManifest)
	if err != nil {
		return err
	}
	kind, err := kindOf(manifest, "")
	if err != nil {
		return err
	}
	m, err := parseManifest(manifest)
	if err != nil {
		return err
	}
	hash, err := v1.NewHash(img.Digest)
	if err != nil {
		return err
	}
	desc := v1.Descriptor{MediaType: kind, Size: int64(len(manifest)), Digest: hash, Platform: &v1.Platform{OS: wantOS, Architecture: wantArch}}
	docker := dockerManifest{Config: path.Join(blobsDir, hexOf(img.ConfigDigest)), RepoTags: []string{}}
	if r, err := parseRef(img.Ref, false); err == nil && r.name != nil {
		desc.Annotations = map[string]string{annotFull: r.full}
		if r.digest == "" {
			docker.RepoTags = append(docker.RepoTags, r.short)
			desc.Annotations[annotName] = r.full
		}
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json", Manifests: []v1.Descriptor{desc}}
	blobs := []v1.Descriptor{{Digest: hash, Size: desc.Size}, m.Config}
	seen := map[string]bool{}
	for _, l := range m.Layers {
		docker.Layers = append(docker.Layers, path.Join(blobsDir, l.Digest.Hex))
		if !seen[l.Digest.Hex] {
			blobs = append(blobs, l)
		}
		seen[l.Digest.Hex] = true
	}

	t := tar.NewWriter(w)
	for _, f := range []struct {
		name    string
		content any
	}{
		{layoutFile, map[string]string{"imageLayoutVersion": "1.0.0"}},
		{indexFile, index},
		{dockerFile, []dockerManifest{docker}},
	} {
		b, err := json.Marshal(f.content)
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(b))}); err != nil {
			return err
		}
		if _, err := t.Write(b); err != nil {
			return err
		}
	}
	for _, d := range blobs {
		if err := s.saveBlob(ctx, t, d); err != nil {
			return err
		}
	}
	return t.Close()
}

// saveBlob copies a blob, looking once more whether it is sound.
func (s *Store) saveBlob(ctx context.Context, t *tar.Writer, d v1.Descriptor) error {
	f, err := os.Open(s.blobPath(d.Digest.String()))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.WriteHeader(&tar.Header{Name: path.Join(blobsDir, d.Digest.Hex), Mode: 0o644, Size: d.Size}); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(t, h), io.LimitReader(&ctxReader{ctx, f}, d.Size), make([]byte, copyChunk))
	if err != nil {
		return err
	}
	if n != d.Size || hex.EncodeToString(h.Sum(nil)) != d.Digest.Hex {
		return fail(ErrDigest, "%s is damaged in the store: remove the image and pull it again", d.Digest)
	}
	return nil
}

// readBlob reads and verifies a small blob of the store.
func (s *Store) readBlob(digest string, limit int64) ([]byte, error) {
	f, err := os.Open(s.blobPath(digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err == nil && digestOf(b) != digest {
		err = fail(ErrDigest, "%s is damaged in the store: remove the image and pull it again", digest)
	}
	return b, err
}
