package erofs

import (
	"io"
	"iter"
	"math"
	"os"
	"strings"
)

// WriterOptions of a Writer. The zero value works.
type WriterOptions struct {
	// Scratch is the directory of a temporary file, which is made when more than
	// 8 MiB of small pieces wait for the end. Empty: that of os.TempDir.
	Scratch string
}

// Writer makes a file system. Files are made without a name (File, Symlink, Node)
// and get names with Link; a file without a name at the end is left out, and its
// data takes no space. It is not for concurrent use. After an error from the image
// file or the scratch file only Close is of use.
type Writer struct {
	out    *os.File
	t      tree
	data   data
	spool  spool
	xattrs xattrSets
	mark   uint16
	inodes int // that have a name
	done   bool
}

// NewWriter returns a Writer that fills out, an empty file open for reading and
// writing. The root is owned by root with mode 0755.
func NewWriter(out *os.File, opts WriterOptions) *Writer {
	w := &Writer{out: out, spool: spool{dir: opts.Scratch}}
	w.data = data{out: out, at: BlockSize, buf: make([]byte, 0, dataBuffer), makeHole: punch}
	w.t.init()
	w.t.inodes.add()
	*w.t.inode(Root) = inode{mode: ModeDir | 0o755, nlink: 2, start: uint32(Root)}
	w.inodes = 1
	return w
}

// Close frees what the Writer holds, scratch space included. It does not close the
// image file. Calling it again does no harm.
func (w *Writer) Close() error {
	w.spool.close()
	w.done = true
	return nil
}

// SetMark sets the mark that names linked from now on get. Marks tell a caller
// which names are new; they do not go to the image.
func (w *Writer) SetMark(mark uint16) { w.mark = mark }

// create makes an inode without a name.
func (w *Writer) create(a Attr, kinds ...uint16) (Ino, *inode, error) {
	ok := false
	for _, k := range kinds {
		ok = ok || a.Mode&ModeType == k
	}
	if !ok || w.done || w.t.inodes.n == math.MaxUint32 {
		return 0, nil, ErrInvalid
	}
	set, err := w.xattrs.intern(a.Xattrs, &w.spool)
	if err != nil {
		return 0, nil, err
	}
	if a.Nanos > 999_999_999 {
		return 0, nil, ErrRange
	}
	ino := Ino(w.t.inodes.add())
	n := w.t.inode(ino)
	*n = inode{mode: a.Mode, uid: a.UID, gid: a.GID, seconds: a.Seconds, nanos: a.Nanos, xattrs: set}
	return ino, n, nil
}

// File makes a regular file with size bytes of r. Zeros in large pieces become
// holes. A reader that ends early is io.ErrUnexpectedEOF.
func (w *Writer) File(a Attr, size int64, r io.Reader) (Ino, error) {
	if size < 0 {
		return 0, opErr("file", ErrInvalid)
	}
	ino, n, err := w.create(a, ModeRegular)
	if err == nil {
		err = w.data.store(r, size, n, w.tail(n), &w.spool)
	}
	return ino, opErr("file", err)
}

// tail is how much of a file's data has room behind its inode.
func (w *Writer) tail(n *inode) int {
	return BlockSize - inodeExtendedSize - w.xattrs.room(n.xattrs)
}

// Symlink makes a symbolic link.
func (w *Writer) Symlink(a Attr, target string) (Ino, error) {
	if target == "" || len(target) > MaxTarget || strings.IndexByte(target, 0) >= 0 {
		return 0, opErr("symlink", ErrInvalid)
	}
	ino, n, err := w.create(a, ModeSymlink)
	if err != nil {
		return 0, opErr("symlink", err)
	}
	if len(target) > w.tail(n) {
		err = w.data.store(strings.NewReader(target), int64(len(target)), n, 0, &w.spool)
	} else {
		n.layout, n.size = layoutInline, int64(len(target))
		err = n.spool(&w.spool, []byte(target))
	}
	return ino, opErr("symlink", err)
}

// Node makes a directory, device, fifo or socket.
func (w *Writer) Node(a Attr) (Ino, error) {
	ino, n, err := w.create(a, ModeDir, ModeChar, ModeBlock, ModeFifo, ModeSocket)
	if err == nil && (a.Mode&ModeType == ModeChar || a.Mode&ModeType == ModeBlock) {
		n.dev = a.Device
	}
	return ino, opErr("node", err)
}

// Link gives a file a name, or one more: directories have one only. The name must
// not be taken.
func (w *Writer) Link(dir Ino, name string, ino Ino) error {
	d, n := w.t.inode(dir), w.t.inode(ino)
	switch {
	case d.mode&ModeType != ModeDir:
		return opErr("link", ErrNotDir)
	case name == "" || name == "." || name == ".." || len(name) > MaxName || strings.ContainsAny(name, "/\x00"):
		return opErr("link", ErrInvalid)
	case w.t.find(dir, name) != 0:
		return opErr("link", ErrExist)
	case n.mode&ModeType == ModeDir && (n.nlink != 0 || d.nlink == 0):
		return opErr("link", ErrIsDir) // a second name, or in a directory that has none
	case n.nlink == math.MaxUint32:
		return opErr("link", ErrRange)
	}
	if n.nlink == 0 {
		w.inodes++
		w.xattrs.ref(n.xattrs)
	}
	n.nlink++
	if n.mode&ModeType == ModeDir {
		n.nlink++ // "."
		n.start, n.blocks = uint32(dir), d.blocks+1
	}
	w.t.insert(dir, name, ino, w.mark)
	return nil
}

// Lookup returns the file of that name in a directory. "." and ".." are not names.
func (w *Writer) Lookup(dir Ino, name string) (Ino, bool) {
	i := w.t.find(dir, name)
	if i == 0 {
		return 0, false
	}
	return w.t.dirents.at(i).ino, true
}

// Mark returns the mark of a name, and sets it to the current one when touch is set.
func (w *Writer) Mark(dir Ino, name string, touch bool) (mark uint16, ok bool) {
	i := w.t.find(dir, name)
	if i == 0 {
		return 0, false
	}
	d := w.t.dirents.at(i)
	mark = d.mark
	if touch {
		d.mark = w.mark
	}
	return mark, true
}

// Names walks the names in a directory, in no useful order. The current name may be
// removed on the way.
func (w *Writer) Names(dir Ino) iter.Seq2[string, Ino] {
	return func(yield func(string, Ino) bool) {
		for _, d := range w.t.entries(dir) {
			if !yield(string(w.t.nameOf(d)), d.ino) {
				return
			}
		}
	}
}

// Parent returns the directory that a directory is in; the root's is the root.
func (w *Writer) Parent(dir Ino) Ino { return Ino(w.t.inode(dir).start) }

// Depth returns how many directories are above a directory.
func (w *Writer) Depth(dir Ino) int { return int(w.t.inode(dir).blocks) }

// Mode returns the type and permissions of a file.
func (w *Writer) Mode(ino Ino) uint16 { return w.t.inode(ino).mode }

// Target returns what a symbolic link points to.
func (w *Writer) Target(ino Ino) (string, error) {
	n := w.t.inode(ino)
	if n.mode&ModeType != ModeSymlink {
		return "", opErr("target", ErrInvalid)
	}
	if n.layout == layoutInline {
		p, err := w.spool.get(n.payload, int(n.paylen))
		return string(p), opErr("target", err)
	}
	if err := w.data.flush(); err != nil {
		return "", opErr("target", err)
	}
	p := make([]byte, n.size)
	_, err := w.out.ReadAt(p, int64(n.start)*BlockSize)
	return string(p), opErr("target", err)
}

// SetAttr changes what describes a directory.
func (w *Writer) SetAttr(dir Ino, a Attr) error {
	n := w.t.inode(dir)
	if n.mode&ModeType != ModeDir || a.Mode&ModeType != ModeDir {
		return opErr("set attributes", ErrNotDir)
	}
	set, err := w.xattrs.intern(a.Xattrs, &w.spool)
	if err == nil && a.Nanos > 999_999_999 {
		err = ErrRange
	}
	if err != nil {
		return opErr("set attributes", err)
	}
	if n.nlink > 0 {
		w.xattrs.ref(set)
		w.xattrs.unref(n.xattrs)
	}
	n.mode, n.uid, n.gid, n.seconds, n.nanos, n.xattrs = a.Mode, a.UID, a.GID, a.Seconds, a.Nanos, set
	return nil
}

// Remove takes a name away, and with a directory all that is below it. The data of
// a file whose last name goes takes no space any more. A name that is not there is
// no error.
func (w *Writer) Remove(dir Ino, name string) {
	if i := w.t.find(dir, name); i != 0 {
		w.remove(i)
	}
}

func (w *Writer) remove(i uint32) {
	// Not recursive: a tree may be deep.
	for stack := []uint32{i}; len(stack) > 0; {
		i := stack[len(stack)-1]
		d := w.t.dirents.at(i)
		ino := d.ino
		n := w.t.inode(ino)
		if n.mode&ModeType == ModeDir && n.dev != 0 {
			stack = append(stack, n.dev)
			continue
		}
		stack = stack[:len(stack)-1]
		w.t.erase(i)
		if n.nlink--; n.mode&ModeType == ModeDir {
			n.nlink = 0
		}
		if n.nlink == 0 {
			w.inodes--
			w.xattrs.unref(n.xattrs)
			w.free(n)
		}
	}
}

// free gives up the data of a file.
func (w *Writer) free(n *inode) {
	if n.mode&ModeType == ModeRegular || n.mode&ModeType == ModeSymlink {
		w.data.free(n.start, n.blocks)
		n.blocks = 0
	}
}

// Discard gives back the disk space of removed files, in the hope that it was not
// written yet. Finish does it too.
func (w *Writer) Discard() error { return opErr("discard", w.data.punch()) }
