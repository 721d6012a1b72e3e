package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
)

// Image is a file system that is read. It may be used by several goroutines at once.
type Image struct {
	r     io.ReaderAt
	size  int64
	meta  int64 // where inode number 0 would be
	xattr int64 // where the shared attributes begin
	root  uint64
}

// OpenImage opens the image of size bytes in r. Compressed files, several devices
// and blocks of other sizes than 4 KiB are ErrUnsupported.
func OpenImage(r io.ReaderAt, size int64) (*Image, error) {
	var b [BlockSize]byte
	im := &Image{r: r, size: size}
	if err := im.read(b[:], 0); err != nil {
		return nil, opErr("open image", err)
	}
	s := b[superOffset:]
	switch {
	case le.Uint32(s) != magic:
		return nil, opErr("open image", fmt.Errorf("no EROFS: %w", ErrCorrupt))
	case s[12] != blockBits:
		return nil, opErr("open image", fmt.Errorf("blocks of 2^%d bytes: %w", s[12], ErrUnsupported))
	case le.Uint32(s[80:])&^incompatChunked != 0:
		return nil, opErr("open image", fmt.Errorf("incompatible features %#x: %w", le.Uint32(s[80:]), ErrUnsupported))
	}
	if le.Uint32(s[8:])&compatChecksum != 0 {
		want := le.Uint32(s[4:])
		clear(s[4:8])
		if ^crc32.Checksum(s, castagnoli) != want {
			return nil, opErr("open image", fmt.Errorf("superblock checksum: %w", ErrCorrupt))
		}
	}
	im.root = uint64(le.Uint16(s[14:]))
	im.meta = int64(le.Uint32(s[40:])) * BlockSize
	im.xattr = int64(le.Uint32(s[44:])) * BlockSize
	f, err := im.File(im.root)
	if err != nil {
		return nil, err
	}
	if !f.IsDir() {
		return nil, opErr("open image", fmt.Errorf("root: %w", ErrNotDir))
	}
	return im, nil
}

// Root is the number of the root directory.
func (im *Image) Root() uint64 { return im.root }

// read fills p from an offset of the image.
func (im *Image) read(p []byte, off int64) error {
	if off < 0 || off > im.size-int64(len(p)) {
		return fmt.Errorf("%d bytes at %d of %d: %w", len(p), off, im.size, ErrCorrupt)
	}
	n, err := im.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) || err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// File is a file of an Image.
type File struct {
	Attr        // Xattrs is empty: see the method of that name
	Size  int64 // in bytes
	Links uint32

	im     *Image
	nid    uint64
	layout uint8
	chunk  uint16 // how the table of chunks is made
	start  int64  // of the data: block
	xattrs int64  // bytes of attributes behind the inode
	behind int64  // what stands behind inode and attributes: offset in the image
}

// File returns the file of a number, as Root and directories give it.
func (im *Image) File(nid uint64) (*File, error) {
	f, err := im.file(nid)
	return f, opErr("read inode", err)
}

func (im *Image) file(nid uint64) (*File, error) {
	if nid > uint64(im.size)>>slotBits {
		return nil, fmt.Errorf("number %d: %w", nid, ErrCorrupt)
	}
	at := im.meta + int64(nid)<<slotBits
	var b [inodeExtendedSize]byte
	if err := im.read(b[:inodeCompactSize], at); err != nil {
		return nil, err
	}
	format := le.Uint16(b[:])
	f := &File{im: im, nid: nid, layout: uint8(format >> 1 & 7)}
	f.Mode = le.Uint16(b[4:])
	u := le.Uint32(b[16:])
	size := int64(inodeCompactSize)
	if format&1 == 0 {
		f.Size = int64(le.Uint32(b[8:]))
		f.Links = uint32(le.Uint16(b[6:]))
		f.UID, f.GID = uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:]))
	} else {
		size = inodeExtendedSize
		if err := im.read(b[:], at); err != nil {
			return nil, err
		}
		f.Size = int64(le.Uint64(b[8:]))
		f.Links = le.Uint32(b[44:])
		f.UID, f.GID = le.Uint32(b[24:]), le.Uint32(b[28:])
		f.Seconds, f.Nanos = int64(le.Uint64(b[32:])), le.Uint32(b[40:])
	}
	if n := int64(le.Uint16(b[2:])); n > 0 {
		f.xattrs = xattrHeaderSize + 4*(n-1)
	}
	f.behind = at + size + f.xattrs
	switch f.Mode & ModeType {
	case ModeChar, ModeBlock:
		f.Device = u
		return f, nil
	case ModeRegular, ModeDir, ModeSymlink:
	case ModeFifo, ModeSocket:
		return f, nil
	default:
		return nil, fmt.Errorf("mode %#o: %w", f.Mode, ErrCorrupt)
	}
	if f.Size < 0 || f.Size > math.MaxInt64-BlockSize {
		return nil, fmt.Errorf("size %d: %w", uint64(f.Size), ErrCorrupt)
	}
	return f, f.locate(u)
}

// locate checks that the data of the file is within the image.
func (f *File) locate(u uint32) error {
	f.start = int64(u)
	var blocks int64
	switch f.layout {
	case layoutPlain:
		blocks = f.Size
	case layoutInline:
		blocks = f.Size &^ (BlockSize - 1)
		tail := f.Size - blocks
		if f.behind%BlockSize+tail > BlockSize || f.behind+tail > f.im.size {
			return fmt.Errorf("data behind inode: %w", ErrCorrupt)
		}
	case layoutChunked:
		f.chunk = uint16(u)
		unit := f.unit()
		f.behind = align(f.behind, unit)
		if f.chunk&^(chunkBitsMask|chunkIndexes) != 0 {
			return fmt.Errorf("chunk format %#x: %w", f.chunk, ErrUnsupported)
		}
		if chunks := (f.Size-1)>>f.chunkBits() + 1; f.behind > f.im.size || chunks > (f.im.size-f.behind)/unit {
			return fmt.Errorf("chunk table: %w", ErrCorrupt)
		}
		return nil
	default:
		return fmt.Errorf("data layout %d: %w", f.layout, ErrUnsupported)
	}
	if blocks > 0 && (f.start == 0 || f.start*BlockSize > f.im.size || blocks > f.im.size-f.start*BlockSize) {
		return fmt.Errorf("data at block %d: %w", f.start, ErrCorrupt)
	}
	return nil
}

func (f *File) unit() int64 {
	if f.chunk&chunkIndexes != 0 {
		return 8
	}
	return 4
}

func (f *File) chunkBits() uint { return uint(f.chunk&chunkBitsMask) + blockBits }

// Number returns the file's number, which its names share.
func (f *File) Number() uint64 { return f.nid }

// IsDir tells whether the file is a directory.
func (f *File) IsDir() bool { return f.Mode&ModeType == ModeDir }

// ReadAt reads the content of a regular file.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.Mode&ModeType != ModeRegular || off < 0 {
		return 0, opErr("read", ErrInvalid)
	}
	return f.readAt(p, off)
}

// Content returns a reader of the whole file.
func (f *File) Content() *io.SectionReader { return io.NewSectionReader(f, 0, f.Size) }

func (f *File) readAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) && off < f.Size {
		at, n, err := f.locateAt(off)
		if err != nil {
			return done, opErr("read", err)
		}
		part := p[done:]
		part = part[:min(int64(len(part)), n, f.Size-off)]
		if at < 0 {
			clear(part)
		} else if err := f.im.read(part, at); err != nil {
			return done, opErr("read", err)
		}
		done += len(part)
		off += int64(len(part))
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// locateAt says where the byte at off is in the image, and how many follow it there.
// -1 is a hole.
func (f *File) locateAt(off int64) (at, n int64, err error) {
	switch whole := f.Size &^ (BlockSize - 1); {
	case f.layout == layoutChunked:
		bits := f.chunkBits()
		unit := f.unit()
		var b [8]byte
		if err := f.im.read(b[:unit], f.behind+off>>bits*unit); err != nil {
			return 0, 0, err
		}
		block := le.Uint32(b[:])
		if unit == 8 {
			if le.Uint16(b[2:]) != 0 {
				return 0, 0, fmt.Errorf("chunk on another device: %w", ErrUnsupported)
			}
			block = le.Uint32(b[4:])
		}
		in := off & (1<<bits - 1)
		if n = 1<<bits - in; block == nullBlock {
			return -1, n, nil
		}
		return int64(block)*BlockSize + in, n, nil
	case f.layout == layoutInline && off >= whole:
		return f.behind + off - whole, f.Size - off, nil
	case f.layout == layoutInline:
		return f.start*BlockSize + off, whole - off, nil
	}
	return f.start*BlockSize + off, f.Size - off, nil
}

// Target returns what a symbolic link points to.
func (f *File) Target() (string, error) {
	if f.Mode&ModeType != ModeSymlink || f.Size == 0 || f.Size > MaxTarget {
		return "", opErr("read link", ErrInvalid)
	}
	p := make([]byte, f.Size)
	if _, err := f.readAt(p, 0); err != nil {
		return "", err
	}
	if bytes.IndexByte(p, 0) >= 0 {
		return "", opErr("read link", ErrCorrupt)
	}
	return string(p), nil
}

// Entry is a name in a directory.
type Entry struct {
	Name   string
	Number uint64
}

// Entries calls visit for each name of a directory, without "." and "..", until it
// returns false.
func (f *File) Entries(visit func(Entry) bool) error {
	if !f.IsDir() {
		return opErr("read directory", ErrNotDir)
	}
	var block [BlockSize]byte
	for off := int64(0); off < f.Size; off += BlockSize {
		p := block[:min(BlockSize, f.Size-off)]
		if _, err := f.readAt(p, off); err != nil {
			return err
		}
		if more, err := direntBlock(p, visit); err != nil || !more {
			return opErr("read directory", err)
		}
	}
	return nil
}

func direntBlock(p []byte, visit func(Entry) bool) (more bool, err error) {
	if len(p) < direntSize {
		return false, ErrCorrupt
	}
	first := int(le.Uint16(p[8:]))
	if first == 0 || first%direntSize != 0 || first > len(p) {
		return false, ErrCorrupt
	}
	for at := 0; at < first; at += direntSize {
		begin, end := int(le.Uint16(p[at+8:])), len(p)
		last := at+direntSize == first
		if !last {
			end = int(le.Uint16(p[at+direntSize+8:]))
		}
		if begin < first || begin >= end || end > len(p) {
			return false, ErrCorrupt
		}
		name := p[begin:end]
		if i := bytes.IndexByte(name, 0); i >= 0 && last {
			name = name[:i]
		}
		if len(name) == 0 || len(name) > MaxName || bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0 {
			return false, ErrCorrupt
		}
		if s := string(name); s != "." && s != ".." && !visit(Entry{s, le.Uint64(p[at:])}) {
			return false, nil
		}
	}
	return true, nil
}

// Lookup returns the file of a name in a directory; ok is false when there is none.
func (f *File) Lookup(name string) (child *File, ok bool, err error) {
	var nid uint64
	err = f.Entries(func(e Entry) bool {
		if ok = e.Name == name; ok {
			nid = e.Number
		}
		return !ok
	})
	if err != nil || !ok {
		return nil, false, err
	}
	child, err = f.im.File(nid)
	return child, err == nil, err
}

// Xattrs returns the extended attributes of a file, sorted by name. Those of a
// namespace without a known number are left out.
func (f *File) Xattrs() ([]Xattr, error) {
	x, err := f.readXattrs()
	return x, opErr("read attributes", err)
}

func (f *File) readXattrs() ([]Xattr, error) {
	if f.xattrs == 0 {
		return nil, nil
	}
	// At most 256 KiB: the count has 16 bits.
	body := make([]byte, f.xattrs)
	at := f.im.meta + int64(f.nid)<<slotBits
	var format [2]byte
	if err := f.im.read(format[:], at); err != nil {
		return nil, err
	}
	at += inodeCompactSize
	if format[0]&1 != 0 {
		at += inodeExtendedSize - inodeCompactSize
	}
	if err := f.im.read(body, at); err != nil {
		return nil, err
	}
	shared := int(body[4])
	if xattrHeaderSize+4*shared > len(body) {
		return nil, ErrCorrupt
	}
	var all []Xattr
	for i := range shared {
		id := le.Uint32(body[xattrHeaderSize+4*i:])
		x, err := f.im.sharedXattr(id)
		if err != nil {
			return nil, err
		}
		all = appendXattr(all, x)
	}
	for p := body[xattrHeaderSize+4*shared:]; len(p) >= xattrEntrySize; {
		if p[0] == 0 && p[1] == 0 && le.Uint16(p[2:]) == 0 {
			break // unused room
		}
		n := xattrEntrySize + int(p[0]) + int(le.Uint16(p[2:]))
		if n > len(p) {
			return nil, ErrCorrupt
		}
		all = appendXattr(all, p[:n])
		p = p[min(int(align(int64(n), 4)), len(p)):]
	}
	slices.SortFunc(all, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (im *Image) sharedXattr(id uint32) ([]byte, error) {
	at := im.xattr + int64(id)*4
	var head [xattrEntrySize]byte
	if err := im.read(head[:], at); err != nil {
		return nil, err
	}
	p := make([]byte, xattrEntrySize+int(head[0])+int(le.Uint16(head[2:])))
	return p, im.read(p, at)
}

func appendXattr(all []Xattr, entry []byte) []Xattr {
	for _, p := range xattrPrefixes {
		if p.index == entry[1] {
			n := xattrEntrySize + int(entry[0])
			return append(all, Xattr{p.name + string(entry[xattrEntrySize:n]), bytes.Clone(entry[n:])})
		}
	}
	return all
}
