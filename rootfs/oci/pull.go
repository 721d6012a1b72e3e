package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// parallelLayers is how many layers are fetched at once.
const parallelLayers = 4

// Pull makes the image that ref stands for usable and returns it: it fetches
// what the store lacks and converts it, both at once. ref is a reference as
// Docker has them, or the digest of an image that the store has.
//
// With PullIfMissing and PullNever an image that is in the store needs no
// network and no lock. Cancelling ctx ends the pull; what has arrived is kept
// for the next one, for a day or until Prune is called.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	img, err := s.pull(ctx, ref, o)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if err != nil && !errors.Is(err, ErrImagePull) && !errors.Is(err, ErrInvalidReference) && !errors.Is(err, ErrInvalidOptions) && !errors.Is(err, ErrImageNotFound) {
		err = fmt.Errorf("%w: %w", ErrImagePull, err)
	}
	return img, opError("pull", ref, err)
}

func (s *Store) pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	r, err := parseRef(ref, o.Insecure)
	if err != nil {
		return nil, err
	}
	switch {
	case (o.Username == "") != (o.Password == ""):
		return nil, fail(ErrInvalidOptions, "Username and Password: both or neither")
	case o.Policy < PullIfMissing || o.Policy > PullNever:
		return nil, fail(ErrInvalidOptions, "Policy: unknown policy %d", o.Policy)
	}
	g, err := newGuard(o)
	if err != nil {
		return nil, err
	}
	defer g.close()
	p := newProgress(o.Progress, r.short)
	p.emit(Event{Kind: EventResolving})
	if o.Policy != PullAlways || r.name == nil {
		img, err := s.lookup(r)
		if err == nil {
			p.cached(img)
			return img, nil
		}
		switch {
		case !errors.Is(err, ErrImageNotFound):
			return nil, err
		case r.name == nil:
			return nil, fail(ErrImageNotFound, "not in the store, and a digest alone does not say which registry has it")
		case o.Policy == PullNever:
			return nil, fail(ErrImageNotFound, "not in the store, and the policy is never to pull")
		}
	}
	reg, err := s.connect(ctx, g, r.name.Context(), o)
	if err != nil {
		return nil, err
	}
	img, err := s.ingest(ctx, reg, r.name.Identifier(), r, p)
	if err == nil {
		s.tidy()
	}
	return img, err
}

// ingest takes an image from a source into the store, under the reference r if it has a name.
func (s *Store) ingest(ctx context.Context, src source, id string, r *reference, p *progress) (img *Image, err error) {
	for range 3 {
		if img, err = s.ingestOnce(ctx, src, id, r, p); err != nil {
			return nil, err
		}
		if _, err := s.lookup(&reference{full: img.Digest, digest: img.Digest}); err == nil {
			p.complete(img)
			return img, nil
		}
		// Somebody removed the image, or its root, while it was given a name.
	}
	return nil, fail(ErrImageNotFound, "it is being removed as fast as it arrives")
}

func (s *Store) ingestOnce(ctx context.Context, src source, id string, r *reference, p *progress) (*Image, error) {
	lock, err := s.lockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	res, img, err := s.resolve(ctx, src, id, func(digest string) *Image {
		img, err := s.lookup(&reference{full: digest, digest: digest})
		if err != nil || !s.haveBlobs(img) {
			return nil
		}
		return img
	})
	if err != nil {
		return nil, err
	}
	if img != nil {
		if err := s.name(img, r); err != nil {
			return nil, err
		}
		p.emit(Event{Kind: EventResolved, Digest: img.Digest, Layers: img.Layers, Cached: true})
		return img, nil
	}
	img = &res.image
	if err := s.checkSpace(img); err != nil {
		return nil, err
	}
	if r == nil {
		p.mu.Lock()
		p.ref = img.Digest
		p.mu.Unlock()
	}
	p.emit(Event{Kind: EventResolved, Digest: img.Digest, Layers: img.Layers, Total: s.missing(img)})
	root, err := s.fetchAndConvert(ctx, src, res, p)
	if errors.Is(err, errDamaged) && ctx.Err() == nil {
		// What earlier pulls had left was wrong, and is gone now.
		root, err = s.fetchAndConvert(ctx, src, res, p)
	}
	if err != nil {
		return nil, err
	}
	if err := s.putBlob(img.ConfigDigest, res.config); err != nil {
		return nil, err
	}
	if err := s.putBlob(img.Digest, res.manifest); err != nil {
		return nil, err
	}
	img.store, img.root, img.RootSize, img.Added = s, root, root.Size, time.Now().UTC()
	if err := writeJSON(s.manifestPath(img.Digest), imageRecord{Image: *img, Root: root}); err != nil {
		return nil, err
	}
	return img, s.name(img, r)
}

// name lets the reference stand for the image.
func (s *Store) name(img *Image, r *reference) error {
	if r == nil || r.name == nil {
		return nil
	}
	img.Ref = r.short
	return writeJSON(s.refPath(r.full), refRecord{Ref: r.full, Digest: img.Digest, Index: img.IndexDigest, Added: time.Now().UTC()})
}

// missing is how many bytes of the layers are to be fetched.
func (s *Store) missing(img *Image) int64 {
	n, seen := int64(0), map[string]bool{}
	for _, l := range img.Layers {
		if st, err := os.Stat(s.blobPath(l.Digest)); !seen[l.Digest] && (err != nil || st.Size() != l.Size) {
			n += l.Size
		}
		seen[l.Digest] = true
	}
	return n
}

func (s *Store) haveBlobs(img *Image) bool {
	for _, d := range []string{img.Digest, img.ConfigDigest} {
		if _, err := os.Stat(s.blobPath(d)); err != nil {
			return false
		}
	}
	return s.missing(img) == 0
}

// checkSpace fails early when the disk cannot even hold the layers.
func (s *Store) checkSpace(img *Image) error {
	free, err := freeSpace(s.dir)
	if need := s.missing(img); err == nil && need > free {
		return fmt.Errorf("its layers need %d bytes, but %s has %d left", need, s.dir, free)
	}
	return nil
}

// putBlob stores a small blob that is in memory and verified.
func (s *Store) putBlob(digest string, content []byte) error {
	path := s.blobPath(digest)
	if st, err := os.Stat(path); err == nil && st.Size() == int64(len(content)) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// fetchAndConvert fetches the layers, a few at a time and the lowest first, and
// converts them as they arrive.
func (s *Store) fetchAndConvert(ctx context.Context, src source, res *resolved, p *progress) (root, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait() // after the cancel above

	layers := res.image.Layers
	total := int64(0)
	blobs := map[string]*blob{}
	var queue []func() error
	streams := make([]*stream, len(layers))
	for i, l := range layers {
		total += l.Size
		b := blobs[l.Digest]
		if b == nil {
			cached := false
			if st, err := os.Stat(s.blobPath(l.Digest)); err == nil && st.Size() == l.Size {
				cached = true
			}
			b = newBlob(res.layers[i], func(done int64) { p.layer(i, l, done, cached) })
			blobs[l.Digest] = b
			queue = append(queue, func() error {
				if err := s.fetch(ctx, src, b); err != nil {
					return err
				}
				p.emit(Event{Kind: EventLayerVerified, Digest: l.Digest, Layer: i, Done: l.Size, Total: l.Size, Cached: cached})
				return nil
			})
		}
		streams[i] = &stream{blob: b, diffID: l.DiffID, consumed: p.convert}
	}
	p.start(total)
	defer func() {
		for _, b := range blobs {
			b.close()
		}
	}()

	var fetching sync.WaitGroup
	next := atomic.Int64{}
	for range min(parallelLayers, len(queue)) {
		fetching.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(queue) {
					return
				}
				if err := queue[i](); err != nil {
					cancel(err)
				}
			}
		})
	}
	r, err := s.convertRoot(ctx, rootKey(layers), streams)
	if err != nil {
		cancel(err)
	}
	fetching.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx) // the first thing that went wrong
	}
	if errors.Is(err, errDamaged) {
		s.dropBlobs(layers)
	}
	return r, err
}

// dropBlobs removes layers that may be damaged, unless somebody is fetching them.
func (s *Store) dropBlobs(layers []Layer) {
	for _, l := range layers {
		os.Remove(s.blobPath(l.Digest))
	}
}
