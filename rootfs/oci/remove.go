package oci

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// staleTemp is the age of a temporary file whose writer must be dead: it
	// writes a few kilobytes.
	staleTemp = 10 * time.Minute
	// stale is how long what an interrupted pull has fetched is kept for the
	// next one, unless Prune is called.
	stale = 24 * time.Hour
)

// Remove removes a reference, and with its last reference the image itself: its
// root file system, and the layers that no other image has. Given a digest it
// removes the image when it has no more than one reference; several need Force.
//
// The error is ErrInUse when the image would go but a sandbox needs it. What a
// pull that is going on might use stays for the next Remove or Prune.
func (s *Store) Remove(ref string, o RemoveOptions) (Removed, error) {
	r, err := s.remove(ref, o)
	return r, opError("remove", ref, err)
}

func (s *Store) remove(ref string, o RemoveOptions) (Removed, error) {
	var out Removed
	target, names, err := s.find(ref)
	if err != nil {
		return out, err
	}
	byName := target.Ref != ""
	if byName && len(names) > 1 && !o.Force {
		// Others go on naming the image.
		name := names[slices.IndexFunc(names, func(r refRecord) bool { return shorten(r.Ref) == target.Ref })]
		out.Refs = []string{target.Ref}
		return out, os.Remove(s.refPath(name.Ref))
	}
	if !byName && len(names) > 1 && !o.Force {
		return out, fail(ErrInUse, "it has %d references (%s): remove those, or use force", len(names), joinRefs(names))
	}
	if err := s.drop(target, names, o.Force, o.InUse, &out); err != nil {
		return out, err
	}
	lock, err := s.tryLockExclusive()
	if err != nil || lock == nil {
		return out, err
	}
	defer lock.Close()
	return out, s.sweep(stale, 0, &out)
}

func joinRefs(names []refRecord) string {
	var all []string
	for _, n := range names {
		all = append(all, shorten(n.Ref))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// find finds an image, also one whose root is gone, and everything that names it.
// Its Ref is set when ref is one of the names.
func (s *Store) find(ref string) (*Image, []refRecord, error) {
	r, err := parseRef(ref, false)
	if err != nil {
		return nil, nil, err
	}
	var target *Image
	rec, err := s.readRef(r)
	if err == nil {
		target, err = s.readImage(rec.Digest)
		if errors.Is(err, ErrImageNotFound) && rec.Ref == r.full {
			// A name for an image that is gone: removing it must be possible.
			return &Image{Ref: r.short, Digest: rec.Digest}, []refRecord{*rec}, nil
		}
	}
	if errors.Is(err, ErrImageNotFound) && isShortDigest(ref) {
		target, err = s.byPrefix(ref)
		rec = &refRecord{}
	}
	if err != nil {
		return nil, nil, err
	}
	target.Ref = ""
	if rec.Ref == r.full {
		target.Ref = r.short
	}
	all, err := s.refs()
	var names []refRecord
	for _, n := range all {
		if n.Digest == target.Digest {
			names = append(names, n)
		}
	}
	return target, names, err
}

// drop removes an image's record and references, and its root if no other image
// shares it.
func (s *Store) drop(img *Image, names []refRecord, force bool, inUse func(string) string, out *Removed) error {
	if inUse != nil && !force {
		if by := inUse(img.Digest); by != "" {
			return fail(ErrInUse, "by %s", by)
		}
	}
	path := s.rootPath(img.root.Key)
	shared, err := s.rootShared(img)
	if err != nil {
		return err
	}
	if f, err := os.Open(path); err == nil && !shared && img.root.Key != "" {
		defer f.Close()
		// Held until the root is gone: whoever acquires it in between finds it missing.
		ok, err := tryFlock(f, true)
		if err != nil {
			return err
		}
		if !ok && !force {
			return fail(ErrInUse, "by a running sandbox")
		}
		if st, err := f.Stat(); err == nil {
			out.Bytes += allocated(st)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, n := range names {
		if err := os.Remove(s.refPath(n.Ref)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		out.Refs = append(out.Refs, shorten(n.Ref))
	}
	if err := os.Remove(s.manifestPath(img.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out.Images = append(out.Images, img.Digest)
	return nil
}

// rootShared tells whether another image has the same layers.
func (s *Store) rootShared(img *Image) (bool, error) {
	digests, err := s.digests()
	for _, d := range digests {
		if d == img.Digest {
			continue
		}
		if other, err := s.readImage(d); err == nil && other.root.Key == img.root.Key {
			return true, nil
		}
	}
	return false, err
}

// Prune removes images that have no reference, or with All those that no sandbox needs, and
// everything that belongs to no image: layers, roots, and what interrupted
// pulls and killed processes left. It waits until no pull or load is going on.
func (s *Store) Prune(ctx context.Context, o PruneOptions) (Removed, error) {
	var out Removed
	err := s.prune(ctx, o, &out)
	return out, opError("prune", "", err)
}

func (s *Store) prune(ctx context.Context, o PruneOptions, out *Removed) error {
	var lock *os.File
	for wait := lockPoll; lock == nil; wait = min(2*wait, lockPollMax) {
		var err error
		if lock, err = s.tryLockExclusive(); err != nil {
			return err
		}
		if lock == nil {
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
	}
	defer lock.Close()
	digests, err := s.digests()
	if err != nil {
		return err
	}
	refs, err := s.refs()
	if err != nil {
		return err
	}
	for _, d := range digests {
		var names []refRecord
		for _, r := range refs {
			if r.Digest == d {
				names = append(names, r)
			}
		}
		if len(names) > 0 && !o.All {
			continue
		}
		img, err := s.readImage(d)
		if err != nil { // unreadable: nobody can use it
			img = &Image{Digest: d}
		}
		if err := s.drop(img, names, false, o.InUse, out); err != nil && !errors.Is(err, ErrInUse) {
			return err
		}
	}
	return s.sweep(0, 0, out)
}

// tidy removes what interrupted pulls left long ago. It is called after pulls
// and loads that added something; if somebody else is adding something right now, a
// later one will do it.
func (s *Store) tidy() {
	lock, err := s.tryLockExclusive()
	if err != nil || lock == nil {
		return
	}
	defer lock.Close()
	_ = s.sweep(stale, stale, &Removed{}) // the image is there, that is what counts
}

// sweep removes the files that belong to no image: partial ones and whole layers
// when they have reached the given age. The caller holds the store's lock
// exclusively, so nobody is adding any.
func (s *Store) sweep(partAge, blobAge time.Duration, out *Removed) error {
	digests, err := s.digests()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, d := range digests {
		img, err := s.readImage(d)
		if err != nil {
			continue
		}
		keep[s.blobPath(img.Digest)] = true
		keep[s.blobPath(img.ConfigDigest)] = true
		keep[s.rootPath(img.root.Key)] = true
		for _, l := range img.Layers {
			keep[s.blobPath(l.Digest)] = true
		}
	}
	for _, dir := range []string{refsDir, manifestsDir, blobsDir, rootsDir, "."} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := s.path(dir, e.Name())
			var n int64
			var err error
			switch {
			case e.IsDir():
			case strings.HasPrefix(e.Name(), tempPrefix):
				n, err = removeOld(path, staleTemp)
			case strings.HasSuffix(e.Name(), partSuffix):
				n, err = removePart(path, partAge)
			case dir == blobsDir && !keep[path]:
				n, err = removeOld(path, blobAge)
			case dir == rootsDir && !keep[path]:
				n, err = removeUnlocked(path)
			}
			out.Bytes += n
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func removeOld(path string, age time.Duration) (int64, error) {
	st, err := os.Stat(path)
	if err != nil || time.Since(st.ModTime()) < age {
		return 0, err
	}
	return allocated(st), os.Remove(path)
}

// removeUnlocked removes a root, unless a sandbox has it.
func removeUnlocked(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	ok, err := tryFlock(f, true)
	if !ok || err != nil {
		return 0, err
	}
	return allocated(st), os.Remove(path)
}
