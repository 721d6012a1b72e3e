// Package cachefile keeps files that are derived from data embedded in the
// program, such as an unpacked kernel, in a directory that several processes
// share.
//
// A file is addressed by the SHA-256 of its content. It is filled in a
// temporary file, checked against that digest, synced and renamed, so that a
// name either does not exist or names complete content, whatever happens to
// the processes that race to make it.
//
// Reading the whole content again at each use would cost more than the boot it
// serves. Instead the modification time of a verified file is set to an instant
// computed from the digest: whoever writes to the file or truncates it later
// changes that time. The check at each use is therefore one fstat. It finds
// accidents, and files that belong to another user than root or the caller, but
// the directory must not be writable by anybody whom the caller does not trust.
package cachefile

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrMismatch means that the content made for a file has not the digest or the
// size that was asked for.
var ErrMismatch = errors.New("content does not match its digest")

// Error is the error type of this package.
type Error struct {
	Op   string // "open" or "fill"
	Path string // the cache file
	Err  error
}

func (e *Error) Error() string { return "cachefile: " + e.Op + " " + e.Path + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

const (
	tempPrefix = ".fill-"
	// abandoned is the age from which a temporary file is taken for one whose
	// process died: filling takes well under a minute on a slow machine.
	abandoned = time.Hour
)

// Digest is a SHA-256.
type Digest = [sha256.Size]byte

// Path returns where Get keeps a file.
func Path(dir, name string, digest Digest) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%x", name, digest[:16]))
}

// Get opens, for reading, the file of the given name and content in dir. When
// it is missing, cut short or was written to, fill makes it anew: fill gets an
// empty file to write to, and need not sync or close it. Get creates dir when
// it is missing. Any number of goroutines and processes may call Get for the
// same file at once; more than one of them may then run fill, and each result
// is the same.
//
// The file has mode 0444. It must not be changed; mapping it privately is fine.
// The caller closes it.
func Get(dir, name string, digest Digest, size int64, fill func(w *os.File) error) (*os.File, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, &Error{"open", filepath.Join(dir, name), fs.ErrInvalid}
	}
	path := Path(dir, name, digest)
	f, err := openVerified(path, digest, size)
	if err == nil {
		return f, nil
	}
	// A file that cannot be read is replaced just as one that is wrong; if the
	// directory itself is the obstacle, filling says so.
	if f, err = fillFile(dir, path, digest, size, fill); err != nil {
		return nil, &Error{"fill", path, err}
	}
	return f, nil
}

var errStale = errors.New("cut short or written to")

func openVerified(path string, digest Digest, size int64) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != size || !info.ModTime().Equal(seal(digest)) || !trustedOwner(info)) {
		err = errStale
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func fillFile(dir, path string, digest Digest, size int64, fill func(w *os.File) error) (_ *os.File, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	sweep(dir)
	tmp, err := os.CreateTemp(dir, tempPrefix+strconv.FormatInt(time.Now().Unix(), 10)+"-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		tmp.Close()
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if err := fill(tmp); err != nil {
		return nil, err
	}
	if err := verify(tmp, digest, size); err != nil {
		return nil, err
	}
	if err := tmp.Chmod(0o444); err != nil {
		return nil, err
	}
	// The seal goes on last: nothing writes to the file after it.
	if err := os.Chtimes(tmp.Name(), time.Time{}, seal(digest)); err != nil {
		return nil, err
	}
	// Synced, or a crash of the host could leave a file of the right size and
	// time with holes in it.
	if err := tmp.Sync(); err != nil {
		return nil, err
	}
	// Opened before the rename: the name may be somebody else's (equal) file
	// afterwards, or gone again.
	f, err := os.Open(tmp.Name())
	if err != nil {
		return nil, err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func verify(f *os.File, digest Digest, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != size {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrMismatch, info.Size(), size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	if got := h.Sum(nil); string(got) != string(digest[:]) {
		return fmt.Errorf("%w: sha256 %x instead of %x", ErrMismatch, got, digest)
	}
	return nil
}

// seal is the modification time of a verified file: an even second (file
// systems with a coarse clock keep it too) between 1980 and 2014, long before
// any real write.
func seal(digest Digest) time.Time {
	const start = 315532800 // 1980-01-01, the earliest time FAT can hold
	return time.Unix(start+int64(binary.LittleEndian.Uint32(digest[:])%(1<<29))*2, 0)
}

// sweep removes what processes that died while filling left behind. It is only
// called before a fill, which is rare, and its errors do not matter.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		// The age is in the name: the time of modification may be the seal already.
		rest, ok := strings.CutPrefix(e.Name(), tempPrefix)
		if !ok {
			continue
		}
		began, _, _ := strings.Cut(rest, "-")
		if sec, err := strconv.ParseInt(began, 10, 64); err == nil && time.Since(time.Unix(sec, 0)) > abandoned {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
