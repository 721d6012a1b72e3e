// Package erofs writes and reads EROFS file systems, uncompressed ones of 4 KiB
// blocks, as Linux 5.15 and later mount them.
//
// A Writer takes files in any order. The data of a file goes to the image at once,
// so an image is made in one pass over its data; what describes the files is kept
// in memory, compactly, and written behind the data by Finish. Hard links, devices,
// extended attributes, holes and any bytes in names are supported.
//
// An Image reads such a file system, and does not trust it.
//
// The format is described in the kernel's Documentation/filesystems/erofs.rst and
// fs/erofs/erofs_fs.h; the names here follow it.
package erofs

import (
	"encoding/binary"
	"errors"
)

// BlockSize is the size of a block, in bytes. An image is a multiple of it.
const BlockSize = 4096

const blockBits = 12

// File types and special permissions in a mode, as Linux has them.
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeRegular = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFifo    = 0o010000
	ModeSetuid  = 0o4000
	ModeSetgid  = 0o2000
	ModeSticky  = 0o1000
	ModePerm    = 0o7777 // permissions, with the three above
)

// Limits of the format or of Linux.
const (
	MaxName       = 255   // bytes in a name
	MaxTarget     = 4095  // bytes in a symbolic link's target
	MaxXattrName  = 255   // bytes in an attribute's name, with its namespace
	MaxXattrValue = 65535 // bytes in an attribute's value
	MaxXattrBytes = 65536 // names and values of all attributes of one file
)

const (
	magic       = 0xe0f5e1e2
	superOffset = 1024
	superSize   = 128

	compatChecksum  = 0x1
	compatMtime     = 0x2 // the times are those of modification
	incompatChunked = 0x4

	slotBits = 5 // an inode number counts slots of 32 bytes
	slotSize = 1 << slotBits

	inodeCompactSize  = 32
	inodeExtendedSize = 64

	direntSize = 12

	xattrHeaderSize = 12
	xattrEntrySize  = 4

	chunkBitsMask = 0x1f
	chunkIndexes  = 0x20
	nullBlock     = 0xffffffff
)

// How an inode's data is laid out.
const (
	layoutPlain   = 0 // consecutive blocks
	layoutInline  = 2 // consecutive blocks, the last bytes behind the inode
	layoutChunked = 4 // a table of chunks behind the inode
)

// File types in a directory entry.
const (
	typeRegular = 1 + iota
	typeDir
	typeChar
	typeBlock
	typeFifo
	typeSocket
	typeSymlink
)

// direntType returns the directory entry type of a mode, 0 when it has none.
func direntType(mode uint16) uint8 {
	switch mode & ModeType {
	case ModeRegular:
		return typeRegular
	case ModeDir:
		return typeDir
	case ModeChar:
		return typeChar
	case ModeBlock:
		return typeBlock
	case ModeFifo:
		return typeFifo
	case ModeSocket:
		return typeSocket
	case ModeSymlink:
		return typeSymlink
	}
	return 0
}

// xattrPrefixes are the namespaces that the format has a number for.
var xattrPrefixes = []struct {
	index uint8
	name  string
}{
	{1, "user."},
	{2, "system.posix_acl_access"},
	{3, "system.posix_acl_default"},
	{4, "trusted."},
	{6, "security."},
}

// Device packs the numbers of a device as Linux does. ok is false when it has no
// room for them: 12 bits for the major number, 20 for the minor.
func Device(major, minor uint32) (dev uint32, ok bool) {
	if major >= 1<<12 || minor >= 1<<20 {
		return 0, false
	}
	return minor&0xff | major<<8 | minor&^0xff<<12, true
}

// Numbers unpacks what Device packed.
func Numbers(dev uint32) (major, minor uint32) {
	return dev >> 8 & 0xfff, dev&0xff | dev>>12&0xfff00
}

// Xattr is an extended attribute. Name has its namespace in front.
type Xattr struct {
	Name  string
	Value []byte
}

// Attr describes a file.
type Attr struct {
	Mode     uint16 // type and permissions
	UID, GID uint32
	Seconds  int64  // time of modification, since 1970
	Nanos    uint32 // and its fraction
	Device   uint32 // of devices, as Device packs it
	Xattrs   []Xattr
}

// Errors of this package.
var (
	ErrExist       = errors.New("file exists")
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrInvalid     = errors.New("invalid argument")
	ErrRange       = errors.New("out of the format's range")
	ErrCorrupt     = errors.New("corrupt image")
	ErrUnsupported = errors.New("feature not supported")
)

// Error is the error type of this package. Errors of the file that an image is
// read from or written to are inside, as are those of the reader given to File.
type Error struct {
	Op  string // such as "link" or "read inode"
	Err error
}

func (e *Error) Error() string { return "erofs: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func opErr(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{op, err}
}

var le = binary.LittleEndian

// align rounds n up to a multiple of to, a power of two.
func align(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }
