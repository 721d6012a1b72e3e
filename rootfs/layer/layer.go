// Package layer turns the layers of a container image into one EROFS image.
//
// Layers are tar streams. They are applied bottom first, in one pass: the data of
// each file goes straight to its final place in the image, and the metadata is
// written at the end. What an upper layer hides is punched out of the image again.
//
// A layer's bytes are not trusted. An entry either has the effect that container
// runtimes give it, always inside the image, or the conversion ends with an *Error
// that names layer and entry.
package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Compression is how a layer's stream is packed. It comes from the media type of
// the layer and is never guessed from the content.
type Compression uint8

const (
	None Compression = iota
	Gzip
	Zstd
)

// Layer is one layer of an image.
type Layer struct {
	// Open returns the layer's stream from its beginning. Convert calls it once,
	// and closes what it returns. It may block until the layer is there; it and
	// the reader's Read should return when ctx ends, which is also when Convert
	// wants no more of the layer.
	Open func(ctx context.Context) (io.ReadCloser, error)

	// Compression of what Open returns.
	Compression Compression

	// Size is the number of bytes that Open's stream has, for Progress only.
	// 0 means that it is not known.
	Size int64

	// Name stands for the layer in errors, for example its digest. Optional.
	Name string

	// DiffID is "sha256:" and the hexadecimal digest of the uncompressed stream.
	// The conversion fails with ErrDigest when it differs. Empty: not checked.
	DiffID string
}

// Limits bound what an image may demand. A zero field means the default.
type Limits struct {
	Entries    int   // entries of all layers together; default 500,000
	TotalBytes int64 // uncompressed bytes of all layers, holes counted; default 64 GiB
	FileBytes  int64 // size of one file, holes counted; default 64 GiB
	PathBytes  int   // length of an entry's name and of a link's target; default 4096
	PathDepth  int   // directories above one another; default 1024
	XattrBytes int   // names and values of one entry's extended attributes; default 64 KiB
}

// Options of a conversion. The zero value works.
type Options struct {
	// Scratch is the directory for a temporary file, which is needed when an image
	// has many small files. Empty: that of os.TempDir.
	Scratch string

	Limits Limits

	// Progress is told how many bytes of the layers' streams have been read, and
	// how many there are: the sum of the layers' Size, or 0 when one is not known.
	// It is called from one goroutine at a time, at most once for each 256 KiB.
	Progress func(done, total int64)
}

// Stats is what a conversion found and made.
type Stats struct {
	Entries       int   // of all layers, and directories that have none of their own
	Inodes        int   // in the image
	TarBytes      int64 // uncompressed bytes of all layers
	ImageBytes    int64 // size of the image, a multiple of 4096
	HoleBytes     int64 // of it, what takes no disk space because an upper layer hides it
	DroppedXattrs int   // attributes that Linux would not accept, or that belong to overlayfs
}

// Reasons for which a layer is refused. Errors.Is finds them in an *Error.
var (
	ErrFormat      = errors.New("malformed layer")               // not a tar stream, or cut short, or wrongly compressed
	ErrDigest      = errors.New("digest mismatch")               // the stream is not what DiffID says
	ErrLimit       = errors.New("over the limit")                // one of Limits
	ErrPath        = errors.New("bad path")                      // a name or link target that Linux does not take
	ErrNotDir      = errors.New("parent is not a directory")     // an entry below a file
	ErrLoop        = errors.New("too many symbolic links")       // in the parents of an entry
	ErrLink        = errors.New("bad hard link")                 // target absent, or a directory
	ErrWhiteout    = errors.New("bad whiteout")                  // of nothing, or of the directory itself
	ErrUnsupported = errors.New("unsupported entry")             // an entry type that no runtime unpacks
	ErrAttribute   = errors.New("attribute out of Linux' range") // owner, device number or extended attribute
)

// Error is the error of a conversion.
type Error struct {
	Layer int    // index, 0 is the bottom; -1 when the image could not be written
	Name  string // the layer's Name
	Entry string // as the layer spells it; empty when no entry is at fault
	Err   error
}

func (e *Error) Error() string {
	s := "layer: "
	if e.Layer < 0 {
		return s + e.Err.Error()
	}
	s += fmt.Sprintf("layer %d", e.Layer)
	if e.Name != "" {
		s += " (" + e.Name + ")"
	}
	if e.Entry != "" {
		s += fmt.Sprintf(": entry %.300q", e.Entry)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
