package share

import (
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// beneath keeps a path inside the directory that it begins at.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

const (
	maxPath    = 3072 // bytes of a path that is resolved in one step; the kernel's limit is 4096
	maxDepth   = 4096 // directories below an export
	openTries  = 16   // openat2 may ask to be called again while somebody renames
	placeTries = 4    // a directory may move while its path is put together
)

// openBeneath opens a path below dir that cannot leave it.
func openBeneath(dir int, path string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: beneath}
	for i := 0; ; i++ {
		fd, err := unix.Openat2(dir, path, &how)
		if i == openTries || err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
}

// procPath names an open file, so that calls that take only paths can be used
// for O_PATH descriptors.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// use returns a descriptor of n itself, of any kind: good for stat, for names
// below it and for procPath. The caller releases it.
func (t *tree) use(n *node) (*desc, fuse.Status) {
	for range placeTries {
		d, s := t.tryUse(n)
		if s != fuse.Status(unix.ESTALE) {
			return d, s
		}
		t.rotate(n)
	}
	return nil, fuse.Status(unix.ESTALE)
}

func (t *tree) tryUse(n *node) (*desc, fuse.Status) {
	t.mu.Lock()
	if d := n.ready(); d != nil {
		d.refs++
		if n.lru != nil {
			t.dirs.MoveToFront(n.lru)
		}
		t.mu.Unlock()
		return d, fuse.OK
	}
	at, names, ok := n.route()
	if !ok {
		t.mu.Unlock()
		return nil, fuse.Status(unix.ESTALE)
	}
	at.refs++
	t.mu.Unlock()
	fd, err := walk(at.fd, names)
	t.release(at)
	if err != nil {
		return nil, staleStatus(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, toStatus(err)
	}
	if !n.is(&st) {
		unix.Close(fd)
		return nil, fuse.Status(unix.ESTALE)
	}
	d := &desc{fd, 1}
	if n.kind == unix.S_IFDIR {
		t.mu.Lock()
		t.keep(n, d)
		t.mu.Unlock()
	}
	return d, fuse.OK
}

// rotate makes another name of a file with hard links the one to try first.
func (t *tree) rotate(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(n.names) > 1 {
		n.names = append(n.names[1:], n.names[0])
	}
}

// keep remembers the descriptor of a directory, or of a file without a name, in
// place of the one that was used least recently. The caller holds mu.
func (t *tree) keep(n *node, d *desc) {
	if n.dropped || n.fd != nil {
		return
	}
	d.refs++
	n.fd, n.lru = d, t.dirs.PushFront(n)
	for t.dirs.Len() > t.cfg.MaxDirs {
		old := t.dirs.Remove(t.dirs.Back()).(*node)
		t.unuse(old.fd)
		old.fd, old.lru = nil, nil
	}
}

// ready is a descriptor of n that is open, or nil.
func (n *node) ready() *desc {
	if n.fd != nil {
		return n.fd
	}
	if len(n.open) > 0 {
		return n.open[0].desc
	}
	return nil
}

// is tells whether a file is n.
func (n *node) is(st *unix.Stat_t) bool {
	return uint64(st.Dev) == n.dev && st.Ino == n.ino && st.Mode&unix.S_IFMT == n.kind
}

// route finds the nearest directory above n with an open descriptor, and the
// names that lead from there to n.
func (n *node) route() (*desc, []string, bool) {
	var names []string
	for range maxDepth {
		if d := n.ready(); d != nil {
			return d, names, true
		}
		if len(n.names) == 0 {
			return nil, nil, false
		}
		p := n.names[0]
		names = append(names, p.name)
		n = p.dir
	}
	return nil, nil, false
}

// walk opens what is below dir by names, the last one first.
func walk(dir int, names []string) (int, error) {
	at := dir
	for {
		var path strings.Builder
		for len(names) > 0 && path.Len() < maxPath {
			if path.Len() > 0 {
				path.WriteByte('/')
			}
			path.WriteString(names[len(names)-1])
			names = names[:len(names)-1]
		}
		fd, err := openBeneath(at, path.String(), unix.O_PATH|unix.O_NOFOLLOW, 0)
		if at != dir {
			unix.Close(at)
		}
		if err != nil || len(names) == 0 {
			return fd, err
		}
		at = fd
	}
}

// site is how to reach a file with few system calls: an open file, or a name in
// an open directory, which need not be the file that was meant.
type site struct {
	*desc
	name string // "" is the file itself
}

// locate returns a site of n. The caller releases its desc, and checks what it
// finds there with n.is.
func (t *tree) locate(n *node) (site, fuse.Status) {
	t.mu.Lock()
	if d := n.ready(); d != nil {
		d.refs++
		t.mu.Unlock()
		return site{d, ""}, fuse.OK
	}
	if n.kind == unix.S_IFDIR || len(n.names) == 0 {
		t.mu.Unlock()
		d, s := t.use(n)
		return site{d, ""}, s
	}
	p := n.names[0]
	t.mu.Unlock()
	d, s := t.use(p.dir)
	return site{d, p.name}, s
}

// path names the file. With a name it must not be followed, without it must.
func (s site) path() string {
	if s.name == "" {
		return procPath(s.fd)
	}
	return procPath(s.fd) + "/" + s.name
}

func (s site) stat(st *unix.Stat_t) error {
	if s.name == "" {
		return unix.Fstat(s.fd, st)
	}
	return unix.Fstatat(s.fd, s.name, st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
}

func (s site) getxattr(attr string, p []byte) (int, error) {
	if s.name == "" {
		return unix.Getxattr(s.path(), attr, p)
	}
	return unix.Lgetxattr(s.path(), attr, p)
}

func toStatus(err error) fuse.Status {
	switch e := err.(type) {
	case nil:
		return fuse.OK
	case unix.Errno:
		return fuse.Status(e)
	}
	return fuse.ToStatus(err)
}

// staleStatus is toStatus for a file that was looked up before: when it is not
// there any more, or something else is, the guest has to look again.
func staleStatus(err error) fuse.Status {
	switch err {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.EAGAIN:
		return fuse.Status(unix.ESTALE)
	}
	return toStatus(err)
}
