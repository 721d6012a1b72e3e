package erofs

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"slices"
)

// Result is what a Writer made.
type Result struct {
	Size   int64 // of the image in bytes, a multiple of BlockSize
	Holes  int64 // of it, what was punched because the files were removed
	Inodes int   // files with a name
}

// child is a directory entry on its way out.
type child struct {
	name []byte
	ino  Ino
	i    uint32 // its dirent; 0 for "." and ".."
}

// layout is the state of placing and writing the metadata.
type layout struct {
	*Writer
	end      int64 // of the metadata so far, from its beginning
	gaps     []gap
	dirBlock int64 // blocks of directories so far
	chunked  bool
	children []child
}

// gap is room at the end of a block of metadata.
type gap struct{ at, room int64 }

// gapReach is how far behind the end a gap may be, in bytes: the writer keeps that
// much in memory.
const gapReach = 32 * BlockSize

// Finish writes the metadata, and the image is complete. The same calls in the same
// order make the same bytes.
func (w *Writer) Finish() (Result, error) {
	r, err := w.finish()
	w.Close()
	return r, opErr("finish", err)
}

func (w *Writer) finish() (Result, error) {
	if w.done {
		return Result{}, ErrInvalid
	}
	for i := Ino(2); uint32(i) < w.t.inodes.n; i++ {
		if n := w.t.inode(i); n.nlink == 0 {
			w.free(n)
		}
	}
	if err := w.data.punch(); err != nil {
		return Result{}, err
	}
	if err := w.xattrs.share(&w.spool); err != nil {
		return Result{}, err
	}
	dirBase := w.data.at / BlockSize
	l := &layout{Writer: w, end: inodeExtendedSize} // number 0 is not used
	l.place(Root)
	l.walk(func(ino Ino, n *inode) error {
		if n.nid == 0 {
			l.place(ino)
		}
		return nil
	})
	metaBase := dirBase + l.dirBlock
	xattrBase := metaBase + align(l.end, BlockSize)/BlockSize
	blocks := xattrBase + align(int64(len(w.xattrs.area)), BlockSize)/BlockSize
	if blocks >= math.MaxUint32 || l.end>>slotBits > math.MaxUint32 {
		return Result{}, ErrRange
	}

	sum := sha256.New()
	sum.Write(le.AppendUint32(nil, w.data.sum))
	dirs := &window{out: w.out, base: dirBase * BlockSize, sum: sum}
	meta := &window{out: w.out, base: metaBase * BlockSize, sum: sha256.New()}
	e := &emitter{layout: l, dirs: dirs, meta: meta, dirBase: uint32(dirBase)}
	if err := e.inode(Root, w.t.inode(Root)); err != nil {
		return Result{}, err
	}
	if err := l.walk(e.inode); err != nil {
		return Result{}, err
	}
	if err := meta.pad((xattrBase - metaBase) * BlockSize); err != nil {
		return Result{}, err
	}
	if err := meta.write((xattrBase-metaBase)*BlockSize, w.xattrs.area); err != nil {
		return Result{}, err
	}
	if err := meta.pad((blocks - metaBase) * BlockSize); err != nil {
		return Result{}, err
	}
	if err := dirs.flush(0); err != nil {
		return Result{}, err
	}
	if err := meta.flush(0); err != nil {
		return Result{}, err
	}
	sum.Write(meta.sum.Sum(nil))
	r := Result{Size: blocks * BlockSize, Holes: w.data.holes, Inodes: w.inodes}
	// The image's identity follows from what is in it.
	uuid := [16]byte(sum.Sum(nil))
	uuid[6] = uuid[6]&0x0f | 0x80 // version 8: made by a rule of our own
	uuid[8] = uuid[8]&0x3f | 0x80
	super := l.super(blocks, metaBase, xattrBase, uuid)
	if _, err := w.out.WriteAt(super, 0); err != nil {
		return Result{}, err
	}
	return r, w.out.Truncate(r.Size)
}

// super makes block 0.
func (l *layout) super(blocks, metaBase, xattrBase int64, uuid [16]byte) []byte {
	b := make([]byte, BlockSize)
	s := b[superOffset:]
	le.PutUint32(s, magic)
	le.PutUint32(s[8:], compatChecksum|compatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], uint16(l.t.inode(Root).nid))
	le.PutUint64(s[16:], uint64(l.inodes))
	le.PutUint32(s[36:], uint32(blocks))
	le.PutUint32(s[40:], uint32(metaBase))
	le.PutUint32(s[44:], uint32(xattrBase))
	copy(s[48:], uuid[:])
	if l.chunked {
		le.PutUint32(s[80:], incompatChunked)
	}
	le.PutUint32(s[4:], ^crc32.Checksum(s, castagnoli))
	return b
}

// walk visits the file of each name, directory by directory, those of one directory
// together and in order. It needs the directories sorted, as place leaves them.
func (l *layout) walk(visit func(Ino, *inode) error) error {
	var subs []Ino
	for stack := []Ino{Root}; len(stack) > 0; {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		subs = subs[:0]
		for _, d := range l.t.entries(at) {
			n := l.t.inode(d.ino)
			if err := visit(d.ino, n); err != nil {
				return err
			}
			if n.mode&ModeType == ModeDir {
				subs = append(subs, d.ino)
			}
		}
		slices.Reverse(subs)
		stack = append(stack, subs...)
	}
	return nil
}

// list fills children with the entries of a directory, without "." and "..".
func (l *layout) list(dir Ino) {
	l.children = l.children[:0]
	for i, d := range l.t.entries(dir) {
		l.children = append(l.children, child{l.t.nameOf(d), d.ino, i})
	}
}

// withDots puts "." and ".." where they belong among the sorted children.
func (l *layout) withDots(dir Ino) {
	for _, dot := range []child{{name: []byte("."), ino: dir}, {name: []byte(".."), ino: l.Parent(dir)}} {
		at, _ := slices.BinarySearchFunc(l.children, dot, func(a, b child) int { return bytes.Compare(a.name, b.name) })
		l.children = slices.Insert(l.children, at, dot)
	}
}

// place gives an inode its number.
func (l *layout) place(ino Ino) {
	n := l.t.inode(ino)
	if n.mode&ModeType == ModeDir {
		l.measure(ino, n)
	}
	l.chunked = l.chunked || n.layout == layoutChunked
	size := inodeExtendedSize + int64(n.paylen)
	if n.xattrs != 0 {
		size += int64(l.xattrs.sets[n.xattrs].size)
	}
	n.nid = uint32(l.room(size) >> slotBits)
}

// room finds a place for an inode with what stands behind it. Up to a block it stays
// within one, as data behind an inode must.
func (l *layout) room(size int64) int64 {
	slots := align(size, slotSize)
	if size <= BlockSize {
		for i := range l.gaps {
			if g := &l.gaps[i]; g.room >= size {
				at := g.at
				g.at += slots
				g.room -= slots
				return at
			}
		}
	}
	left := -l.end & (BlockSize - 1)
	if left > 0 && left < min(size, BlockSize) && (size <= BlockSize || left < inodeExtendedSize) {
		l.gaps = append(l.gaps, gap{l.end, left})
		l.end += left
	}
	at := l.end
	l.end += slots
	for len(l.gaps) > 0 && (l.gaps[0].at < l.end-gapReach || l.gaps[0].room < inodeExtendedSize) {
		l.gaps = l.gaps[1:]
	}
	return at
}

// measure sorts the entries of a directory and computes its size and layout.
func (l *layout) measure(dir Ino, n *inode) {
	l.list(dir)
	n.nlink = 2
	for _, c := range l.children {
		if l.t.inode(c.ino).mode&ModeType == ModeDir {
			n.nlink++
		}
	}
	slices.SortFunc(l.children, func(a, b child) int { return bytes.Compare(a.name, b.name) })
	n.dev = 0
	for _, c := range slices.Backward(l.children) {
		l.t.dirents.at(c.i).next = n.dev
		n.dev = c.i
	}
	l.withDots(dir)
	blocks, tail := int64(0), 0
	for _, c := range l.children {
		if need := direntSize + len(c.name); tail+need > BlockSize {
			blocks++
			tail = need
		} else {
			tail += need
		}
	}
	n.size = blocks*BlockSize + int64(tail)
	n.layout, n.paylen = layoutPlain, 0
	room := BlockSize - inodeExtendedSize
	if n.xattrs != 0 {
		room -= int(l.xattrs.sets[n.xattrs].size)
	}
	if tail <= room {
		n.layout, n.paylen = layoutInline, uint32(tail)
	} else {
		blocks++
	}
	l.dirBlock += blocks
}

// window writes a region of the image about in order: what is up to gapReach behind
// the furthest byte may still be changed.
type window struct {
	out  io.WriterAt
	base int64  // of the region in the image
	at   int64  // where buf begins in the region
	buf  []byte // bytes from at on
	sum  hash.Hash
}

const windowSize = 1 << 20

// write puts p at an offset of the region.
func (w *window) write(off int64, p []byte) error {
	if err := w.pad(off + int64(len(p))); err != nil {
		return err
	}
	copy(w.buf[off-w.at:], p)
	return nil
}

// pad makes the region reach to an offset.
func (w *window) pad(to int64) error {
	if to-w.at > windowSize {
		if err := w.flush(gapReach + BlockSize); err != nil {
			return err
		}
	}
	for n := to - w.at - int64(len(w.buf)); n > 0; n -= pieceSize {
		w.buf = append(w.buf, zeros[:min(n, pieceSize)]...)
	}
	return nil
}

// flush writes all but the last keep bytes.
func (w *window) flush(keep int) error {
	n := len(w.buf) - keep
	if n <= 0 {
		return nil
	}
	if _, err := w.out.WriteAt(w.buf[:n], w.base+w.at); err != nil {
		return err
	}
	w.sum.Write(w.buf[:n])
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	w.at += int64(n)
	return nil
}
