package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	entryPrefix = "vmlinux-"
	tempPrefix  = ".vmlinux-"

	// staleAfter is when a temporary file is taken for the remains of a writer
	// that died. Writing one takes about a tenth of a second.
	staleAfter = time.Hour
)

// Open returns the embedded kernel as a flat image, from the directory cacheDir,
// which it creates if need be. The first call writes the image there (about
// 20 MB of address space in a sparse file); later calls, in any process, only
// check its length and its one-page trailer. An entry that is damaged in a way
// that shows there is replaced. Any number of processes and goroutines may call
// Open at once.
//
// The cache directory must be writable by trusted users only, since what is in
// it runs as the guest's kernel: an entry that belongs to somebody other than
// root or the caller is not used. [Verify] checks an image completely.
//
// The caller closes the Image.
func Open(cacheDir string) (*Image, error) {
	path := filepath.Join(cacheDir, entryName())
	img, err := openEntry(path)
	if err == nil {
		return img, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
		return nil, opError("open", path, err)
	}
	if err := writeEntry(cacheDir, path); err != nil {
		return nil, opError("write", path, err)
	}
	img, err = openEntry(path)
	return img, opError("open", path, err)
}

// entryName contains the digest of the embedded kernel, so that another build
// never meets this one's entry.
func entryName() string { return entryPrefix + imageRelease + "-" + imageDigest[:32] }

// openEntry opens a cache entry and checks all that can be checked without
// reading the image. Damage matches ErrCorrupt.
func openEntry(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	t, err := checkEntry(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Image{
		File:    f,
		Base:    t.base,
		Size:    int64(t.size),
		MemSize: t.memSize,
		Entry:   t.entry,
		Version: imageVersion,
	}, nil
}

func checkEntry(f *os.File) (*trailer, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%w: not a regular file", ErrCorrupt)
	case st.Mode().Perm()&0o222 != 0:
		return nil, fmt.Errorf("%w: writable", ErrCorrupt)
	case !trustedOwner(st):
		return nil, fmt.Errorf("%w: belongs to another user", ErrCorrupt)
	case st.Size() <= trailerSize:
		return nil, fmt.Errorf("%w: %d bytes long", ErrCorrupt, st.Size())
	}
	var b [trailerSize]byte
	if _, err := f.ReadAt(b[:], st.Size()-trailerSize); err != nil {
		return nil, err
	}
	t, err := decodeTrailer(b[:])
	if err != nil {
		return nil, err
	}
	if int64(t.size) != st.Size()-trailerSize {
		return nil, fmt.Errorf("%w: %d bytes long", ErrCorrupt, st.Size())
	}
	if hex.EncodeToString(t.source[:]) != imageDigest {
		return nil, fmt.Errorf("%w: of another kernel", ErrCorrupt)
	}
	return t, nil
}

// writeEntry puts a new entry at path. Concurrent writers each make their own
// file; the renames are atomic and the contents equal, so it does not matter who wins.
func writeEntry(dir, path string) (err error) {
	// Before the slow part: the embedded bytes must be the ones that were built.
	sum := sha256.Sum256(compressed)
	if hex.EncodeToString(sum[:]) != imageDigest {
		return fmt.Errorf("%w: embedded kernel", ErrCorrupt)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	removeStale(dir)
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := fill(f, sum); err != nil {
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	// Without this a crash may leave an entry of the right length full of zeroes.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// Somebody else may have been faster. Keeping theirs keeps one set of pages
	// in the host's cache for all machines.
	if img, err := openEntry(path); err == nil {
		img.Close()
		return os.Remove(f.Name())
	}
	return os.Rename(f.Name(), path)
}

// fill writes the flat image and its trailer into the empty file f, and reads
// the image back once to know its digest.
func fill(f *os.File, source [sha256.Size]byte) error {
	vmlinux, err := ELF()
	if err != nil {
		return err
	}
	r := bytes.NewReader(vmlinux)
	l, err := parseELF(r, r.Size())
	if err != nil {
		return err
	}
	if err := f.Truncate(int64(l.FileSize)); err != nil {
		return err
	}
	if err := l.Flatten(f, r); err != nil {
		return err
	}
	image, err := hashImage(f, int64(l.FileSize))
	if err != nil {
		return err
	}
	t := &trailer{source: source, image: image, base: l.Base, size: l.FileSize, memSize: l.MemSize, entry: l.Entry}
	_, err = f.WriteAt(t.encode(), int64(l.FileSize))
	return err
}

// Verify reads the whole image and compares it with the digest that was taken
// when it was written. Damage matches [ErrCorrupt]. It costs some tens of
// milliseconds; Open does not do it.
func Verify(img *Image) error {
	t, err := checkEntry(img.File)
	if err != nil {
		return opError("verify", img.File.Name(), err)
	}
	sum, err := hashImage(img.File, int64(t.size))
	if err != nil {
		return opError("verify", img.File.Name(), err)
	}
	if sum != t.image {
		return opError("verify", img.File.Name(), fmt.Errorf("%w: content", ErrCorrupt))
	}
	return nil
}

func hashImage(r io.ReaderAt, size int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// removeStale deletes temporary files that their writer cannot need any more.
// Failing to is no reason to fail: they only take space.
func removeStale(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > staleAfter {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
