package erofs

import (
	"hash/maphash"
	"iter"
)

// Ino names a file of a Writer. It is not the number that the image will have.
type Ino uint32

// Root is the root directory of every Writer.
const Root Ino = 1

// inode is a file. There may be a million, so it is small and has no pointers:
// the collector does not look at it.
type inode struct {
	seconds  int64
	size     int64
	payload  int64 // where in the spool: tail, target or chunk table
	paylen   uint32
	nanos    uint32
	uid, gid uint32
	nlink    uint32
	start    uint32 // first block of the data; of a directory the parent
	blocks   uint32 // blocks of the data; of a directory its depth
	dev      uint32 // of a directory its first entry
	xattrs   uint32 // number of the set, 0 for none
	nid      uint32
	mode     uint16
	layout   uint8
	bits     uint8 // of a chunk, above those of a block
}

// dirent is a name in a directory.
type dirent struct {
	name       uint32 // where it begins: chunk and offset in the arena of names
	hash       uint32
	ino        Ino
	parent     Ino
	next, prev uint32 // in the directory
	chain      uint32 // in the hash table
	mark       uint16
	length     uint8
}

const (
	pageItems = 1 << 12 // items of an arena's page
	namePage  = 1 << 16
)

// arena is a growing array that is never moved, so that growing it does not take
// twice its memory. Item 0 is not used.
type arena[T any] struct {
	pages [][]T
	n     uint32
}

func (a *arena[T]) add() uint32 {
	if a.n == 0 {
		a.n = 1
	}
	i := a.n
	if int(i/pageItems) >= len(a.pages) {
		a.pages = append(a.pages, make([]T, pageItems))
	}
	a.n++
	return i
}

func (a *arena[T]) at(i uint32) *T { return &a.pages[i/pageItems][i%pageItems] }

// tree is the files of a Writer and their names.
type tree struct {
	inodes  arena[inode]
	dirents arena[dirent]
	names   [][]byte
	table   []uint32 // heads of the chains; a power of two
	live    int      // names in the table
	seed    maphash.Seed
}

func (t *tree) init() {
	t.seed = maphash.MakeSeed()
	t.table = make([]uint32, 1024)
}

func (t *tree) inode(i Ino) *inode { return t.inodes.at(uint32(i)) }

func (t *tree) nameOf(d *dirent) []byte {
	page, off := d.name/namePage, d.name%namePage
	return t.names[page][off : off+uint32(d.length)]
}

// keep stores a name.
func (t *tree) keep(name string) uint32 {
	last := len(t.names) - 1
	if last < 0 || len(t.names[last])+len(name) > namePage {
		t.names = append(t.names, make([]byte, 0, namePage))
		last++
	}
	page := &t.names[last]
	at := uint32(last)*namePage + uint32(len(*page))
	*page = append(*page, name...)
	return at
}

func (t *tree) hash(dir Ino, name string) uint32 {
	h := maphash.String(t.seed, name)
	h ^= uint64(dir) * 0x9e3779b97f4a7c15
	return uint32(h ^ h>>32)
}

// find returns the entry of name in dir, 0 when there is none.
func (t *tree) find(dir Ino, name string) uint32 {
	h := t.hash(dir, name)
	for i := t.table[h&uint32(len(t.table)-1)]; i != 0; {
		d := t.dirents.at(i)
		if d.hash == h && d.parent == dir && string(t.nameOf(d)) == name {
			return i
		}
		i = d.chain
	}
	return 0
}

// insert adds an entry that is not there.
func (t *tree) insert(dir Ino, name string, ino Ino, mark uint16) {
	if t.live >= len(t.table) {
		t.rehash()
	}
	i := t.dirents.add()
	h := t.hash(dir, name)
	slot := &t.table[h&uint32(len(t.table)-1)]
	parent := t.inode(dir)
	*t.dirents.at(i) = dirent{
		name: t.keep(name), length: uint8(len(name)), hash: h,
		ino: ino, parent: dir, next: parent.dev, chain: *slot, mark: mark,
	}
	*slot = i
	if parent.dev != 0 {
		t.dirents.at(parent.dev).prev = i
	}
	parent.dev = i
	t.live++
}

func (t *tree) rehash() {
	t.table = make([]uint32, 2*len(t.table))
	for i := uint32(1); i < t.dirents.n; i++ {
		d := t.dirents.at(i)
		if d.ino == 0 {
			continue
		}
		slot := &t.table[d.hash&uint32(len(t.table)-1)]
		d.chain, *slot = *slot, i
	}
}

// erase takes an entry out. Its place is not used again.
func (t *tree) erase(i uint32) {
	d := t.dirents.at(i)
	for p := &t.table[d.hash&uint32(len(t.table)-1)]; *p != 0; {
		if *p == i {
			*p = d.chain
			break
		}
		p = &t.dirents.at(*p).chain
	}
	if d.prev != 0 {
		t.dirents.at(d.prev).next = d.next
	} else {
		t.inode(d.parent).dev = d.next
	}
	if d.next != 0 {
		t.dirents.at(d.next).prev = d.prev
	}
	d.ino = 0
	t.live--
}

// entries walks the entries of a directory, newest first. The current one may be
// erased on the way.
func (t *tree) entries(dir Ino) iter.Seq2[uint32, *dirent] {
	return func(yield func(uint32, *dirent) bool) {
		for i := t.inode(dir).dev; i != 0; {
			d := t.dirents.at(i)
			next := d.next
			if !yield(i, d) {
				return
			}
			i = next
		}
	}
}
