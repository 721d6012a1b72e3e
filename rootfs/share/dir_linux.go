package share

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Offsets in struct linux_dirent64.
const (
	direntOff  = 8
	direntLen  = 16
	direntType = 18
	direntName = 19

	dirBuffer = 32 << 10
)

// dirStream is where an open directory is read. mu is held for a whole request.
type dirStream struct {
	mu    sync.Mutex
	buf   []byte // entries that were read from the host and not given out
	space []byte
	pos   uint64 // offset of the first of them
	names []string
}

// dirEntry is one entry of the host.
type dirEntry struct {
	ino, off uint64
	kind     uint8 // DT_*
	name     string
}

// parseEntry reads the first entry of a buffer of getdents64.
func parseEntry(b []byte) (e dirEntry, rest []byte, ok bool) {
	if len(b) < direntName {
		return e, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b[direntLen:]))
	if n < direntName || n > len(b) {
		return e, nil, false
	}
	name, _, _ := bytes.Cut(b[direntName:n], []byte{0})
	return dirEntry{
		ino:  binary.NativeEndian.Uint64(b),
		off:  binary.NativeEndian.Uint64(b[direntOff:]),
		kind: b[direntType],
		name: string(name),
	}, b[n:], true
}

// eachEntry reads a directory from where it stands, without "." and "..".
func eachEntry(fd int, buf []byte, f func(name string, kind uint8)) error {
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for b := buf[:n]; ; {
			e, rest, ok := parseEntry(b)
			if !ok {
				break
			}
			if b = rest; e.name != "." && e.name != ".." {
				f(e.name, e.kind)
			}
		}
	}
}

// OpenDir opens a directory.
func (t *tree) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == rootID {
		return t.openRoot(out)
	}
	n, status := t.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if n.kind != unix.S_IFDIR {
		return fuse.ENOTDIR
	}
	d, status := t.use(n)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	fd, err := openBeneath(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return toStatus(err)
	}
	h, status := t.opened(n, fd, false)
	if !status.Ok() {
		return status
	}
	t.mu.Lock()
	h.dir = &dirStream{}
	t.mu.Unlock()
	out.Fh = h.id
	return fuse.OK
}

// ReleaseDir closes a directory.
func (t *tree) ReleaseDir(in *fuse.ReleaseIn) { t.closeHandle(in.NodeId, in.Fh) }

// FsyncDir makes a directory durable.
func (t *tree) FsyncDir(c <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId == rootID {
		return fuse.OK
	}
	return t.Fsync(c, in)
}

// ReadDir lists names.
func (t *tree) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.NodeId == rootID {
		return t.readRoot(in, func(e fuse.DirEntry, _ *export) bool { return out.AddDirEntry(e) })
	}
	return t.readDir(in, func(h *handle, e fuse.DirEntry) bool {
		if e.Mode == typeReg {
			// It may stand for something else.
			var st unix.Stat_t
			s := site{h.desc, e.Name}
			if s.stat(&st) == nil {
				e.Mode = h.node.ex.owner(s, &st).mode & modeType
			}
		}
		return out.AddDirEntry(e)
	})
}

// ReadDirPlus lists names and looks them up.
func (t *tree) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if in.NodeId == rootID {
		return t.readRoot(in, func(e fuse.DirEntry, ex *export) bool {
			p := out.AddDirLookupEntry(e)
			var eo fuse.EntryOut
			if p != nil && ex != nil && t.exportEntry(ex, &eo).Ok() {
				*p = eo
			}
			return p != nil
		})
	}
	return t.readDir(in, func(h *handle, e fuse.DirEntry) bool {
		p := out.AddDirLookupEntry(e)
		if p == nil {
			return false
		}
		if e.Name == "." || e.Name == ".." {
			return true
		}
		// Without a node the guest gets the name alone, and looks it up.
		var st unix.Stat_t
		var eo fuse.EntryOut
		s := site{h.desc, e.Name}
		if s.stat(&st) != nil {
			return true
		}
		if _, status := t.entry(h.node.ex, place{h.node, e.Name}, s, &st, &eo); status.Ok() {
			*p = eo
			out.FixMode(eo.Mode)
		}
		return true
	})
}

// readDir gives entries from the offset of the request on to add, until it says
// that there is no room.
func (t *tree) readDir(in *fuse.ReadIn, add func(*handle, fuse.DirEntry) bool) fuse.Status {
	h, status := t.handle(in.NodeId, in.Fh)
	if !status.Ok() {
		return status
	}
	defer t.release(h.desc)
	if h.dir == nil {
		return fuse.ENOTDIR
	}
	s := h.dir
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.Offset != s.pos {
		if _, err := unix.Seek(h.fd, int64(in.Offset), unix.SEEK_SET); err != nil {
			return toStatus(err)
		}
		s.buf, s.pos = nil, in.Offset
	}
	for {
		if len(s.buf) == 0 {
			if s.space == nil {
				s.space = make([]byte, dirBuffer)
			}
			n, err := unix.Getdents(h.fd, s.space)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				s.space = nil
				return toStatus(err)
			}
			s.buf = s.space[:n]
		}
		e, rest, ok := parseEntry(s.buf)
		if !ok {
			return fuse.EIO
		}
		ino := t.guestIno(h.node.dev, e.ino)
		if !add(h, fuse.DirEntry{Name: e.name, Ino: ino, Mode: uint32(e.kind) << 12, Off: e.off}) {
			return fuse.OK
		}
		s.buf, s.pos = rest, e.off
	}
}

// The root of the tree, which lists the exports.

func (t *tree) rootAttr(a *fuse.Attr) {
	*a = fuse.Attr{Ino: rootID, Mode: typeDir | 0o555, Nlink: 2, Blksize: 4096}
}

func (t *tree) lookupExport(name string, out *fuse.EntryOut) fuse.Status {
	if name == "." || name == ".." {
		return fuse.EINVAL
	}
	t.mu.Lock()
	e := t.exports[name]
	t.mu.Unlock()
	if e == nil {
		return fuse.ENOENT
	}
	return t.exportEntry(e, out)
}

// exportEntry is a lookup of an export.
func (t *tree) exportEntry(e *export, out *fuse.EntryOut) fuse.Status {
	s := site{e.fd, ""}
	var st unix.Stat_t
	if err := s.stat(&st); err != nil {
		return toStatus(err)
	}
	_, status := t.entry(e, place{}, s, &st, out)
	return status
}

func (t *tree) openRoot(out *fuse.OpenOut) fuse.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.handles) >= t.cfg.MaxHandles {
		return fuse.Status(unix.ENFILE)
	}
	h := &handle{id: t.nextID, dir: &dirStream{}}
	for name := range t.exports {
		h.dir.names = append(h.dir.names, name)
	}
	slices.Sort(h.dir.names)
	t.nextID++
	t.handles[h.id] = h
	out.Fh = h.id
	return fuse.OK
}

func (t *tree) readRoot(in *fuse.ReadIn, add func(fuse.DirEntry, *export) bool) fuse.Status {
	t.mu.Lock()
	h := t.handles[in.Fh]
	t.mu.Unlock()
	if h == nil || h.node != nil {
		return fuse.EBADF
	}
	names := append([]string{".", ".."}, h.dir.names...)
	for i := in.Offset; i < uint64(len(names)); i++ {
		t.mu.Lock()
		ex := t.exports[names[i]]
		t.mu.Unlock()
		e := fuse.DirEntry{Name: names[i], Ino: rootID, Mode: typeDir, Off: i + 1}
		if ex != nil {
			e.Ino, e.Mode = t.guestIno(uint64(ex.stat.Dev), ex.stat.Ino), ex.stat.Mode&modeType
		}
		if !add(e, ex) {
			break
		}
	}
	return fuse.OK
}
