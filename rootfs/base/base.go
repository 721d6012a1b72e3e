// Package base is the root file system that a sandbox gets when no image is
// named. It is small, has a shell and the usual commands, and is part of the
// program, so that everything works without an image and without a network.
//
// The image is an uncompressed EROFS file system, embedded with zstd
// (base.erofs.zst). Its commands are those of u-root and a few of our own, in
// two executables; the shell is built on mvdan.cc/sh. SHA256SUMS says what it
// was built from, NOTICE carries the licences of what is in it. A test tells
// when the image is older than its sources; "make base" builds it anew.
package base

import (
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/cachefile"
)

//go:embed base.erofs.zst
var packed []byte

//go:embed SHA256SUMS
var sums []byte

// Notice is the licence texts of the code in the image.
//
//go:embed NOTICE
var Notice string

const imageContent = "base.erofs"

// Error is the error type of this package.
type Error struct {
	Op  string // "open"
	Err error
}

func (e *Error) Error() string { return "base: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Image is the base image as a file.
type Image struct {
	// File is open for reading. It may be read, or mapped privately, by any
	// number of users at once, and must not be changed.
	File *os.File
	// Size of the image in bytes, a multiple of 4096.
	Size int64
	// Digest of its content, "sha256:…".
	Digest string
}

// Close closes the file. Calling it again does no harm.
func (i *Image) Close() error {
	if i.File == nil {
		return nil
	}
	f := i.File
	i.File = nil
	return f.Close()
}

// Open returns the base image from the directory cacheDir. It is unpacked there
// when it is not there yet, which takes some tens of milliseconds and, for the
// decompressor, about 10 MB of memory; otherwise opening it costs two system
// calls. Any number of processes may share cacheDir, which must be writable
// only by those whom the caller trusts.
func Open(cacheDir string) (*Image, error) {
	s, err := artifact.ParseSums(sums)
	if err != nil {
		return nil, &Error{"open", err}
	}
	want, err := s.Content(imageContent)
	if err != nil {
		return nil, &Error{"open", err}
	}
	f, err := cachefile.Get(cacheDir, imageContent, want.Digest, want.Size, func(w *os.File) error {
		return artifact.Unpack(w, packed, want.Size)
	})
	if err != nil {
		return nil, &Error{"open", err}
	}
	return &Image{File: f, Size: want.Size, Digest: digestPrefix + hex.EncodeToString(want.Digest[:])}, nil
}

const digestPrefix = "sha256:"

// ErrMissing means that the image of a digest is neither this program's nor in
// the cache.
var ErrMissing = errors.New("base image of another version of this program, no longer in the cache")

// OpenDigest opens the base image that an Image's Digest and Size name: this
// program's, or one that another version of it has left in the cache.
func OpenDigest(cacheDir, digest string, size int64) (*Image, error) {
	if img, err := Open(cacheDir); err != nil || img.Digest == digest {
		return img, err
	} else {
		img.Close()
	}
	var d cachefile.Digest
	if b, err := hex.DecodeString(strings.TrimPrefix(digest, digestPrefix)); err != nil || copy(d[:], b) != len(d) || len(b) != len(d) {
		return nil, &Error{"open", fmt.Errorf("%q is no digest", digest)}
	}
	f, err := cachefile.Get(cacheDir, imageContent, d, size, func(*os.File) error { return ErrMissing })
	if err != nil {
		return nil, &Error{"open", err}
	}
	return &Image{File: f, Size: size, Digest: digest}, nil
}
