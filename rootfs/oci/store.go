package oci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hutchvm/hutch/rootfs/layer"
)

const (
	storeDir     = "images"
	lockName     = "lock"
	refsDir      = "refs"
	manifestsDir = "manifests"
	blobsDir     = "blobs/sha256"
	rootsDir     = "roots"
	partSuffix   = ".part"
	rootSuffix   = ".erofs"
	jsonSuffix   = ".json"
	tempPrefix   = ".new-"
)

// Store is a directory of images. It holds nothing open, so it needs no Close.
type Store struct {
	dir     string
	backoff func(attempt int) time.Duration // before retrying a transfer
	convert func(ctx context.Context, layers []layer.Layer, out *os.File, opts layer.Options) (layer.Stats, error)
}

// Open opens the store below home, making its directories when they are missing.
func Open(home string) (*Store, error) {
	if home == "" {
		return nil, opError("open", "", fail(ErrInvalidOptions, "no home directory"))
	}
	s := &Store{dir: filepath.Join(home, storeDir), backoff: defaultBackoff, convert: layer.Convert}
	for _, d := range []string{refsDir, manifestsDir, blobsDir, rootsDir} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, opError("open", "", err)
		}
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) blobPath(digest string) string { return s.path(blobsDir, hexOf(digest)) }
func (s *Store) manifestPath(digest string) string {
	return s.path(manifestsDir, hexOf(digest)+jsonSuffix)
}
func (s *Store) rootPath(key string) string { return s.path(rootsDir, key+rootSuffix) }
func (s *Store) refPath(full string) string {
	sum := sha256.Sum256([]byte(full))
	return s.path(refsDir, hex.EncodeToString(sum[:])+jsonSuffix)
}

// hexOf is the digest without its algorithm. Digests come here only after they
// were parsed, so it is a plain file name.
func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// refRecord is the content of refs/KEY.json.
type refRecord struct {
	Ref    string    `json:"ref"` // canonical
	Digest string    `json:"digest"`
	Index  string    `json:"index,omitempty"`
	Added  time.Time `json:"added"`
}

// imageRecord is the content of manifests/HEX.json. The image can be used as
// long as the root is there and unchanged.
type imageRecord struct {
	Image Image `json:"image"`
	Root  root  `json:"root"`
}

// root names a converted root file system. Its file's modification time is
// computed from the key, as in package cachefile: whoever writes to the file
// later changes that time, so one fstat tells whether it is still good.
type root struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
}

func (r root) matches(st fs.FileInfo) bool {
	return sealed(r.Key, st) && st.Size() == r.Size
}

func sealed(key string, st fs.FileInfo) bool {
	return st.Mode().IsRegular() && st.ModTime().Equal(seal(key))
}

// seal is an even second between 1980 and 2014, long before any real write.
func seal(key string) time.Time {
	const start = 315532800 // 1980-01-01
	b, err := hex.DecodeString(key)
	if err != nil || len(b) < 4 {
		return time.Time{}
	}
	return time.Unix(start+int64(binary.LittleEndian.Uint32(b)%(1<<29))*2, 0)
}

// writeJSON replaces the file at path atomically. Two writers do not meet in
// the temporary file, because its name is random.
func writeJSON(path string, v any) (err error) {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(b, '\n'))
	// Without the sync a crash of the host could leave an empty record. It is small.
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Get finds the image that ref stands for, without any network. A digest, with
// or without a name, finds the image of that digest whatever it is called; so do the
// first 12 or more digits of one, when they are no name. The error is
// ErrImageNotFound when there is none, or its files are gone.
func (s *Store) Get(ref string) (*Image, error) {
	r, err := parseRef(ref, false)
	if err != nil {
		return nil, opError("get", ref, err)
	}
	img, err := s.lookup(r)
	if errors.Is(err, ErrImageNotFound) && isShortDigest(ref) {
		img, err = s.byPrefix(ref)
	}
	return img, opError("get", ref, err)
}

// lookup is Get for a parsed reference. An image that lacks its root is not found.
func (s *Store) lookup(r *reference) (*Image, error) {
	rec, err := s.readRef(r)
	if err != nil {
		return nil, err
	}
	img, err := s.readImage(rec.Digest)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(s.rootPath(img.root.Key))
	if err != nil || !img.root.matches(st) {
		return nil, ErrImageNotFound
	}
	img.Ref = ""
	if r.name != nil {
		img.Ref = r.short
	}
	if rec.Index != "" {
		img.IndexDigest = rec.Index
	}
	return img, nil
}

// readRef finds what a reference stands for.
func (s *Store) readRef(r *reference) (*refRecord, error) {
	rec := &refRecord{}
	err := readJSON(s.refPath(r.full), rec)
	if err == nil {
		err = checkDigest(rec.Digest)
	}
	switch {
	case err == nil:
		return rec, nil
	case !errors.Is(err, fs.ErrNotExist):
		// A record that cannot be read is as good as none: the next pull replaces it.
		return nil, ErrImageNotFound
	case r.digest == "":
		return nil, ErrImageNotFound
	}
	// Content is the same under every name.
	if _, err := os.Stat(s.manifestPath(r.digest)); err == nil {
		return &refRecord{Digest: r.digest}, nil
	}
	recs, err := s.refs()
	if err != nil {
		return nil, err
	}
	for _, rec := range recs {
		if rec.Index == r.digest {
			return &rec, nil
		}
	}
	return nil, ErrImageNotFound
}

// readImage reads the record of the image of a digest.
func (s *Store) readImage(digest string) (*Image, error) {
	var rec imageRecord
	if err := readJSON(s.manifestPath(digest), &rec); err != nil {
		return nil, ErrImageNotFound
	}
	if rec.Image.Digest != digest || checkHex(rec.Root.Key) != nil {
		return nil, ErrImageNotFound
	}
	img := rec.Image
	img.store, img.root = s, rec.Root
	return &img, nil
}

func (s *Store) byPrefix(prefix string) (*Image, error) {
	var found *Image
	digests, err := s.digests()
	if err != nil {
		return nil, err
	}
	for _, d := range digests {
		img, err := s.readImage(d)
		if err != nil || !strings.HasPrefix(hexOf(d), prefix) && !strings.HasPrefix(hexOf(img.ConfigDigest), prefix) {
			continue
		}
		if found != nil {
			return nil, fail(ErrInvalidReference, "more than one digest begins with %s", prefix)
		}
		found = img
	}
	if found == nil {
		return nil, ErrImageNotFound
	}
	return s.lookup(&reference{full: found.Digest, digest: found.Digest})
}

// refs reads all references.
func (s *Store) refs() ([]refRecord, error) {
	entries, err := os.ReadDir(s.path(refsDir))
	if err != nil {
		return nil, err
	}
	var all []refRecord
	for _, e := range entries {
		var rec refRecord
		if !strings.HasSuffix(e.Name(), jsonSuffix) || readJSON(s.path(refsDir, e.Name()), &rec) != nil || checkDigest(rec.Digest) != nil {
			continue
		}
		all = append(all, rec)
	}
	return all, nil
}

// digests are those of all images.
func (s *Store) digests() ([]string, error) {
	entries, err := os.ReadDir(s.path(manifestsDir))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if h, ok := strings.CutSuffix(e.Name(), jsonSuffix); ok && checkHex(h) == nil {
			all = append(all, "sha256:"+h)
		}
	}
	return all, nil
}

// List gives all images, one for each reference and one for each image that
// has none, sorted by reference. Images whose root is missing are included; pulling mends them.
func (s *Store) List() ([]*Image, error) {
	refs, err := s.refs()
	if err != nil {
		return nil, opError("list", "", err)
	}
	digests, err := s.digests()
	if err != nil {
		return nil, opError("list", "", err)
	}
	all := []*Image{}
	named := map[string]bool{}
	for _, r := range refs {
		img, err := s.readImage(r.Digest)
		if err != nil {
			continue
		}
		named[r.Digest] = true
		img.Ref = shorten(r.Ref)
		img.Added = r.Added
		img.IndexDigest = r.Index
		all = append(all, img)
	}
	for _, d := range digests {
		if img, err := s.readImage(d); err == nil && !named[d] {
			img.Ref = ""
			all = append(all, img)
		}
	}
	slices.SortFunc(all, func(a, b *Image) int {
		return strings.Compare(a.Ref+"\x00"+a.Digest, b.Ref+"\x00"+b.Digest)
	})
	return all, nil
}

// Acquire opens the image's root file system and keeps the image from being
// removed until the lease is closed, or its process ends. The error is
// ErrImageNotFound when the root is gone or was written to; pulling the image again mends that.
func (i *Image) Acquire() (*Lease, error) {
	l, err := i.acquire()
	return l, opError("acquire", cmp.Or(i.Ref, i.Digest), err)
}

func (i *Image) acquire() (*Lease, error) {
	if i.store == nil {
		return nil, fail(ErrInvalidOptions, "not an image of a store")
	}
	path := i.store.rootPath(i.root.Key)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrImageNotFound
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !i.root.matches(st) {
		err = fail(ErrImageNotFound, "its root file system was cut short or written to")
	}
	if err == nil {
		// Only removal locks exclusively, and for moments.
		err = flock(context.Background(), f, false)
	}
	if err == nil && !isAt(f, path) {
		err = ErrImageNotFound // removed in between
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Lease{File: f, Size: st.Size()}, nil
}
