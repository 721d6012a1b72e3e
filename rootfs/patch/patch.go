// Package patch makes the layer of a sandbox that holds its patches: ordered edits
// of the root file system before boot. The image below is never touched. The layer
// is a small EROFS image of its own, which the guest mounts between image and upper
// disk (overlay lowerdir=patch:base); what a patch removes is a whiteout in it.
package patch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/hutchvm/hutch/rootfs/erofs"
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

var kindNames = [...]string{"?", "file", "append", "copy file", "copy directory", "symlink", "mkdir", "remove"}

func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		k = 0
	}
	return kindNames[k]
}

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
	Mode     uint16 // st_mode as Linux has it: type and permissions
	UID, GID uint32
	Size     int64
	ModTime  time.Time
	Xattrs   []erofs.Xattr
}

func (i *Info) isDir() bool { return i.Mode&erofs.ModeType == erofs.ModeDir }

// Lower is the file system below the patches. Paths are slash-separated and
// relative to its root ("." is the root), and have no "..". The directories on the
// way to the last element are real ones: the caller has resolved links. A path
// that does not exist is an fs.ErrNotExist.
type Lower interface {
	Lstat(path string) (Info, error)
	Readlink(path string) (string, error)
	Open(path string) (io.ReadCloser, error)
}

// Reasons for which a patch fails, beside fs.ErrExist, fs.ErrNotExist and what the
// host says about a source. Errors.Is finds them in an *Error.
var (
	ErrInvalid = errors.New("invalid patch")
	ErrIsDir   = errors.New("is a directory")
	ErrNotDir  = errors.New("not a directory")
	ErrNotFile = errors.New("not a regular file")
	ErrLoop    = errors.New("too many symbolic links")
	ErrSource  = errors.New("source is of a type that is not copied")
)

// Error is the error of a Build.
type Error struct {
	Index int // of the patch; -1 when none is at fault
	Kind  Kind
	Path  string
	Err   error
}

func (e *Error) Error() string {
	if e.Index < 0 {
		return "patch: " + e.Err.Error()
	}
	return fmt.Sprintf("patch: patch %d: %s %.300q: %v", e.Index, e.Kind, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// modeBits are those of Patch.Mode that mean something.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// Validate tells whether the patches make sense by themselves, sources on the host
// included. Build begins with it; it has no side effects.
func Validate(patches []Patch) error {
	for i := range patches {
		if err := patches[i].validate(); err != nil {
			return &Error{i, patches[i].Kind, patches[i].Path, err}
		}
	}
	return nil
}

func (p *Patch) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if p.Kind < File || p.Kind > Remove {
		return bad("Kind %d", p.Kind)
	}
	if !strings.HasPrefix(p.Path, "/") || len(p.Path) > 4096 || strings.IndexByte(p.Path, 0) >= 0 {
		return bad("Path is not an absolute path")
	}
	for part := range strings.SplitSeq(p.Path, "/") {
		if part == ".." || len(part) > erofs.MaxName {
			return bad("Path has %.300q in it", part)
		}
	}
	if path.Clean(p.Path) == "/" && p.Kind != CopyDir && p.Kind != Mkdir {
		return bad("Path is the root directory")
	}
	if p.Mode&^modeBits != 0 {
		return bad("Mode %v has more than permissions", p.Mode)
	}
	if p.Data != nil && p.Kind != File && p.Kind != Append {
		return bad("Data is of no use")
	}
	if copies := p.Kind == CopyFile || p.Kind == CopyDir; copies != (p.Source != "") {
		return bad("Source %.300q", p.Source)
	}
	if p.Kind == Symlink && p.Target == "" || p.Kind != Symlink && p.Target != "" ||
		len(p.Target) > erofs.MaxTarget || strings.IndexByte(p.Target, 0) >= 0 {
		return bad("Target %.300q", p.Target)
	}
	if p.Source == "" {
		return nil
	}
	info, err := os.Stat(p.Source)
	switch {
	case err != nil:
		return fmt.Errorf("source: %w", err)
	case p.Kind == CopyDir && !info.IsDir():
		return fmt.Errorf("source %s: %w", p.Source, ErrNotDir)
	case p.Kind == CopyFile && !info.Mode().IsRegular():
		return fmt.Errorf("source %s: %w", p.Source, ErrNotFile)
	}
	return nil
}
