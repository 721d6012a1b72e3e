package share

import (
	"container/list"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	rootID   = fuse.FUSE_ROOT_ID
	maxNames = 8 // of one file with hard links that are remembered
)

// tree is the file system that the protocol layer sees: what the guest has
// looked up and opened, and the exports. mu guards all of it; it is not held
// over system calls on files, except close.
type tree struct {
	fuse.RawFileSystem // answers ENOSYS to what is not implemented
	cfg                Config

	mu      sync.Mutex
	closed  bool
	exports map[string]*export
	byID    map[uint64]*node
	byKey   map[key]*node
	handles map[uint64]*handle
	nextID  uint64 // of nodes and handles; no number is used twice
	dirs    *list.List
	devices map[uint64]uint64 // device number → what tells its inode numbers apart
}

// key is what makes two nodes the same.
type key struct {
	ex       *export
	dev, ino uint64
}

// node is a file that the guest has looked up.
type node struct {
	key
	id   uint64
	kind uint32 // S_IFMT bits on the host

	// Guarded by tree.mu.
	names   []place // where it was last seen; empty when it is gone, or an export itself
	lookups uint64  // that the guest has not given back
	refs    int     // nodes below it, and handles
	dropped bool
	fd      *desc // of a directory, an export, or what lost its last name
	lru     *list.Element
	open    []*handle
	stamp   stamp // of the data that the guest may have cached

	caps   atomic.Int32 // capsUnknown, capsNone
	growth sync.Mutex   // held over what changes the file's size on disk, when there is a quota
}

// place is a name in a directory.
type place struct {
	dir  *node
	name string
}

// desc is an open file that closes with its last user. refs is guarded by tree.mu.
type desc struct {
	fd   int
	refs int
}

// stamp tells one content of a file from another.
type stamp struct {
	size         int64
	mtime, ctime unix.Timespec
	valid        bool
}

// handle is an open file or directory of the guest.
type handle struct {
	id   uint64
	node *node
	*desc
	writable bool
	dir      *dirStream // of directories; the exports' directory has no desc
}

func newTree(cfg Config) *tree {
	return &tree{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg,
		exports:       map[string]*export{},
		byID:          map[uint64]*node{},
		byKey:         map[key]*node{},
		handles:       map[uint64]*handle{},
		nextID:        rootID + 1,
		dirs:          list.New(),
		devices:       map[uint64]uint64{},
	}
}

// String names the file system.
func (t *tree) String() string { return "hutch" }

func (t *tree) add(e *export) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	if t.exports[e.name] != nil {
		return ErrExists
	}
	t.exports[e.name] = e
	return nil
}

// reset drops all nodes and handles.
func (t *tree) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.handles {
		if h.node != nil {
			t.end(h)
		}
	}
	for _, n := range t.byID {
		n.lookups = 0
		if n.fd != nil && n.lru != nil {
			t.unuse(n.fd)
		}
		n.fd, n.lru, n.dropped = nil, nil, true
	}
	t.dirs.Init()
	clear(t.byID)
	clear(t.byKey)
	clear(t.handles)
}

func (t *tree) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, e := range t.exports {
		e.close()
	}
	clear(t.exports)
	return nil
}

// node returns the node of that number.
func (t *tree) node(id uint64) (*node, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byID[id]; n != nil {
		return n, fuse.OK
	}
	return nil, fuse.Status(unix.ESTALE)
}

// handle returns an open file of a node; the caller gives it back with release.
func (t *tree) handle(node, fh uint64) (*handle, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[fh]
	if h == nil || h.desc == nil || h.node.id != node {
		return nil, fuse.EBADF
	}
	h.refs++
	return h, fuse.OK
}

// release gives a descriptor back.
func (t *tree) release(d *desc) {
	t.mu.Lock()
	t.unuse(d)
	t.mu.Unlock()
}

func (t *tree) unuse(d *desc) {
	if d == nil {
		return
	}
	if d.refs--; d.refs == 0 {
		unix.Close(d.fd)
	}
}

// enter counts a lookup of the file at a place and returns its node, which is
// new if nobody knew it.
func (t *tree) enter(e *export, at place, st *unix.Stat_t) (*node, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at.dir != nil && at.dir.dropped {
		return nil, fuse.Status(unix.ESTALE)
	}
	k := key{e, uint64(st.Dev), st.Ino}
	n := t.byKey[k]
	if n != nil && n.kind != st.Mode&unix.S_IFMT {
		// The number belongs to another file now.
		delete(t.byKey, k)
		n = nil
	}
	if n == nil {
		if len(t.byID) >= t.cfg.MaxNodes {
			return nil, fuse.Status(unix.ENFILE)
		}
		n = &node{key: k, id: t.nextID, kind: st.Mode & unix.S_IFMT}
		t.nextID++
		t.byID[n.id], t.byKey[k] = n, n
		if at.dir == nil {
			n.fd = e.fd
		}
	}
	n.lookups++
	if at.dir != nil {
		t.seen(n, at)
	}
	return n, fuse.OK
}

// seen remembers that n is at a place.
func (t *tree) seen(n *node, at place) {
	if n.key.ex.fd == n.fd && n.fd != nil {
		return // an export needs no name; a loop of mounts may show it below itself
	}
	if i := slices.Index(n.names, at); i >= 0 {
		n.names[0], n.names[i] = n.names[i], n.names[0]
		return
	}
	at.dir.refs++
	if len(n.names) < maxNames {
		n.names = append(n.names, place{})
	} else {
		t.unref(n.names[maxNames-1].dir)
	}
	copy(n.names[1:], n.names)
	n.names[0] = at
}

// lost forgets a place of n.
func (t *tree) lost(n *node, at place) {
	if i := slices.Index(n.names, at); i >= 0 {
		n.names = slices.Delete(n.names, i, i+1)
		t.unref(at.dir)
	}
}

// known is the node of a file, if the guest has looked it up.
func (t *tree) known(e *export, st *unix.Stat_t) *node {
	return t.byKey[key{e, uint64(st.Dev), st.Ino}]
}

func (t *tree) unref(n *node) {
	n.refs--
	t.drop(n)
}

// drop removes a node that nobody needs, and then maybe its directory.
func (t *tree) drop(n *node) {
	for n != nil && n.lookups == 0 && n.refs == 0 && !n.dropped {
		n.dropped = true
		delete(t.byID, n.id)
		if t.byKey[n.key] == n {
			delete(t.byKey, n.key)
		}
		if n.lru != nil {
			t.dirs.Remove(n.lru)
			t.unuse(n.fd)
		}
		n.fd, n.lru = nil, nil
		names := n.names
		n.names = nil
		n = nil
		for i, p := range names {
			p.dir.refs--
			if i == len(names)-1 {
				n = p.dir // the usual case needs no recursion, however deep the tree
			} else {
				t.drop(p.dir)
			}
		}
	}
}

// Forget gives lookups back.
func (t *tree) Forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byID[id]; n != nil {
		n.lookups -= min(count, n.lookups)
		t.drop(n)
	}
}

// opened makes a handle of an open file, which it takes over.
func (t *tree) opened(n *node, fd int, writable bool) (*handle, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.handles) >= t.cfg.MaxHandles || n.dropped {
		unix.Close(fd)
		if n.dropped {
			return nil, fuse.Status(unix.ESTALE)
		}
		return nil, fuse.Status(unix.ENFILE)
	}
	h := &handle{id: t.nextID, node: n, desc: &desc{fd, 1}, writable: writable}
	t.nextID++
	t.handles[h.id] = h
	n.refs++
	n.open = append(n.open, h)
	return h, fuse.OK
}

// closeHandle ends a handle of a node.
func (t *tree) closeHandle(node, fh uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[fh]
	if h == nil || h.node != nil && h.node.id != node {
		return
	}
	delete(t.handles, fh)
	if h.node == nil {
		return
	}
	t.end(h)
	t.unref(h.node)
}

// end closes the file of a handle.
func (t *tree) end(h *handle) {
	n := h.node
	n.open = slices.DeleteFunc(n.open, func(o *handle) bool { return o == h })
	n.settle(h.fd)
	t.unuse(h.desc)
	if len(n.open) == 0 && len(n.names) == 0 && n.fd == nil && t.byKey[n.key] == n {
		delete(t.byKey, n.key) // removed while it was open: the number may soon be another file's
	}
}

// guestIno is the inode number that the guest sees: the host's, with something
// added on devices beyond the first.
func (t *tree) guestIno(dev, ino uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.devices[dev]
	if !ok {
		i = uint64(len(t.devices))
		t.devices[dev] = i
	}
	return ino ^ i<<56
}
