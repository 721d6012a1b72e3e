// Package patch makes the layer of a sandbox that holds its patches: ordered edits
// of the root file system before boot. The image below is never touched. The layer
// is a small EROFS image of its own, which the guest mounts between image and upper
// disk (overlay lowerdir=patch:base); what a patch removes is a whiteout in it.
package patch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// Kind says what a patch does.
type Kind uint8

const (
	File     Kind = iota + 1 // write Data to Path
	Append                   // add Data to the end of the file at Path, which must exist
	CopyFile                 // write the host's file Source to Path
	CopyDir                  // copy the host's directory Source to Path, with all below it
	Symlink                  // make Path a symbolic link to Target
	Mkdir                    // make the directory Path and its parents; fine when it exists
	Remove                   // remove Path and all below it; fine when it does not exist
)

// Patch is one edit. Parents that are missing are made, with mode 0755, owned by
// root. Symbolic links in the parents of Path are followed inside the root file
// system; Path itself is not followed, except by Append and Mkdir.
//
// A Path that exists is an error (fs.ErrExist) unless Replace is set, but for
// Append, Mkdir and Remove. Replace never puts something else in the place of a
// directory: Remove it first. With Replace, CopyDir merges into a directory that
// exists.
type Patch struct {
	Kind   Kind
	Path   string // absolute, in the guest
	Data   []byte // of File and Append
	Source string // of CopyFile and CopyDir: a path on the host
	Target string // of Symlink; any text

	// Mode is the permission bits, with setuid, setgid and sticky as in io/fs.
	// 0: 0644 for File, 0755 for Mkdir, that of the source for CopyFile and
	// CopyDir; for CopyDir it is the mode of the top directory only.
	Mode fs.FileMode

	// UID and GID own what is made; CopyDir gives all that it copies to them.
	UID, GID uint32

	Replace bool
}

// Info describes a file of the image below.
type Info struct {
	Mode     uint32 // st_mode as Linux has it: type and permissions
	UID, GID uint32
	Size     int64
	ModTime  time.Time
	Xattrs   map[string]string
}

// Lower is the file system below the patches. Paths are slash-separated and
// relative to its root ("." is the root), and have no "..". The directories on the
// way to the last element are real ones: the caller has resolved links. A path
// that does not exist is an fs.ErrNotExist.
type Lower interface {
	Lstat(path string) (Info, error)
	Readlink(path string) (string, error)
	Open(path string) (io.ReadCloser, error)
}

// Build makes the layer of the patches, applied in order to lower, and writes it to
// out, an empty file open for reading and writing. All patches are checked before
// the first is applied. Build does not close out; when it fails, out is left in any
// state. The error is an *Error that names the patch.
func Build(ctx context.Context, lower Lower, patches []Patch, out *os.File) error {
	return errors.ErrUnsupported
}
