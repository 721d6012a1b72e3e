// Package ext4 makes and grows ext4 file systems in sparse files, without
// external tools: the writable disks of sandboxes and disk volumes.
//
// The layout is chosen for two things. The file stays small: everything that
// Linux can initialize by itself is left a hole, and marked so that it does not
// go over it in the background either. And growing is easy: each block group
// holds its own bitmaps and inode table at a fixed place, and descriptors are
// spread over meta groups (meta_bg) instead of a table at the front, so that
// nothing ever moves and nothing is reserved. Metadata has checksums, and the
// superblock asks for online discard.
//
// What is in such a file was written by a guest and is hostile: Probe and Grow
// check every number before they use it.
package ext4

import (
	"errors"
	"fmt"
	"time"
)

// Sizes in bytes.
const (
	// BlockSize is that of every file system made here.
	BlockSize = 4096
	// MinSize is the least that Make accepts. Below 8 MiB there is no journal.
	MinSize = 1 << 20
	// MaxSize is the most that Make and Grow accept.
	MaxSize = 16 << 40
)

// Errors of this package. They come wrapped in an *OpError.
var (
	// ErrSize: a size below MinSize, above MaxSize, or smaller than the file
	// system is.
	ErrSize = errors.New("invalid size")
	// ErrNotExt4: no ext4 file system begins there.
	ErrNotExt4 = errors.New("not an ext4 file system")
	// ErrCorrupt: an ext4 file system whose numbers contradict each other.
	ErrCorrupt = errors.New("corrupt file system")
	// ErrLayout: an ext4 file system that this package cannot grow, since
	// it was made, or changed, by something else.
	ErrLayout = errors.New("file system was not made by this package")
	// ErrErrors: Linux has found errors in the file system; e2fsck must repair it.
	ErrErrors = errors.New("file system has errors: run e2fsck")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string // "make", "grow", "probe", "replay"
	Err error
}

// Error says what was being done.
func (e *OpError) Error() string { return fmt.Sprintf("ext4: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Options of Make. The zero value works.
type Options struct {
	// UUID of the file system; zero means a random one. With UUID and Time set
	// the result is the same bytes each time.
	UUID [16]byte
	// Label is the volume's name, up to 16 bytes.
	Label string
	// Time of creation; zero means now.
	Time time.Time
	// Owner of the root directory.
	UID, GID uint32
	// Mode is the root directory's permission bits; zero means 0755.
	Mode uint32
}
