package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// in returns the directory of a request and a descriptor of it, which the caller
// releases, after checking the name that is to be used in it.
func (t *tree) in(id uint64, name string) (*node, *desc, fuse.Status) {
	n, status := t.node(id)
	if !status.Ok() {
		return nil, nil, status
	}
	if len(name) > MaxName {
		return nil, nil, fuse.Status(unix.ENAMETOOLONG)
	}
	if !validName(name) {
		return nil, nil, fuse.EINVAL
	}
	if n.kind != unix.S_IFDIR {
		return nil, nil, fuse.ENOTDIR
	}
	d, status := t.use(n)
	return n, d, status
}

// inWritable is in for what changes the directory.
func (t *tree) inWritable(id uint64, name string) (*node, *desc, fuse.Status) {
	if id == rootID {
		return nil, nil, fuse.EROFS
	}
	n, d, status := t.in(id, name)
	if status.Ok() && n.ex.opt.ReadOnly {
		t.release(d)
		return nil, nil, fuse.EROFS
	}
	return n, d, status
}

// Lookup finds a name in a directory.
func (t *tree) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if h.NodeId == rootID {
		return t.lookupExport(name, out)
	}
	n, d, status := t.in(h.NodeId, name)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	return t.lookupIn(n, d, name, out)
}

func (t *tree) lookupIn(n *node, d *desc, name string, out *fuse.EntryOut) fuse.Status {
	s := site{d, name}
	var st unix.Stat_t
	if err := s.stat(&st); err != nil {
		return toStatus(err)
	}
	_, status := t.entry(n.ex, place{n, name}, s, &st, out)
	return status
}

// creation is what all that makes a file has in common.
type creation struct {
	t      *tree
	dir    *node
	d      *desc
	name   string
	caller fuse.Owner
	mode   uint32 // kind and permissions that the guest wants
	rdev   uint32
}

// begin checks the request and counts the file. The caller calls done.
func (t *tree) create(h *fuse.InHeader, name string, mode, rdev uint32) (*creation, fuse.Status) {
	n, d, status := t.inWritable(h.NodeId, name)
	if !status.Ok() {
		return nil, status
	}
	if err := n.ex.quota.inode(); err != nil {
		t.release(d)
		return nil, toStatus(err)
	}
	c := &creation{t, n, d, name, h.Owner, mode, rdev}
	c.inherit()
	return c, fuse.OK
}

// inherit gives the file the group of a set-group-ID directory.
func (c *creation) inherit() {
	var st unix.Stat_t
	if unix.Fstat(c.d.fd, &st) != nil {
		return
	}
	o := c.dir.ex.owner(site{c.d, ""}, &st)
	if o.mode&unix.S_ISGID == 0 {
		return
	}
	c.caller.Gid = o.gid
	if c.mode&modeType == typeDir {
		c.mode |= unix.S_ISGID
	}
}

// done releases the directory and takes the count back if nothing was made.
func (c *creation) done(status *fuse.Status) {
	if !status.Ok() {
		c.dir.ex.quota.add(-InodeCost)
	}
	c.t.release(c.d)
}

// finish gives what was made its owner and answers the request. fd is the file if
// it is open, else -1. When it fails the file is removed again.
func (c *creation) finish(fd int, out *fuse.EntryOut) (*node, fuse.Status) {
	e := c.dir.ex
	s := site{c.d, c.name}
	if fd >= 0 {
		s = site{&desc{fd: fd}, ""}
	}
	var st unix.Stat_t
	err := s.stat(&st)
	if err == nil {
		err = c.own(e, s, &st)
	}
	if err == nil {
		err = s.stat(&st)
	}
	var n *node
	status := toStatus(err)
	if err == nil {
		n, status = c.t.entry(e, place{c.dir, c.name}, s, &st, out)
	}
	if !status.Ok() {
		flags := 0
		if c.mode&modeType == typeDir {
			flags = unix.AT_REMOVEDIR
		}
		unix.Unlinkat(c.d.fd, c.name, flags)
		return nil, status
	}
	e.quota.add(st.Blocks * 512)
	return n, status
}

// own records the owner of a new file, where the host's file does not show it.
func (c *creation) own(e *export, s site, st *unix.Stat_t) error {
	want := owner{c.caller.Uid, c.caller.Gid, c.mode & (modeType | modePerm), c.rdev}
	if e.opt.Mirror {
		return c.mirror(s, st, want)
	}
	if want == e.plain(st) {
		return nil
	}
	name := e.attr(st.Mode&unix.S_IFMT, attrStat)
	if name == "" {
		if want.mode&modeType != st.Mode&unix.S_IFMT {
			return unix.EPERM
		}
		return nil // nowhere to keep it: it belongs to root
	}
	// By path and not followed: what is there may not be ours any more.
	if s.name != "" {
		return unix.Lsetxattr(s.path(), name, []byte(want.String()), 0)
	}
	return unix.Setxattr(s.path(), name, []byte(want.String()), 0)
}

func (c *creation) mirror(s site, st *unix.Stat_t, want owner) error {
	if want.uid != st.Uid || want.gid != st.Gid {
		flags, path, dir := 0, s.path(), unix.AT_FDCWD
		if s.name != "" {
			flags, path, dir = unix.AT_SYMLINK_NOFOLLOW, s.name, s.fd
		}
		if err := unix.Fchownat(dir, path, int(want.uid), int(want.gid), flags); err != nil {
			return err
		}
	}
	if s.name != "" {
		// A new directory is opened for its permissions; links have none.
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		fd, err := openBeneath(s.fd, s.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fchmodat(unix.AT_FDCWD, procPath(fd), mirrorMode(want.mode), 0)
	}
	return unix.Fchmodat(unix.AT_FDCWD, s.path(), mirrorMode(want.mode), 0)
}

// Mkdir makes a directory.
func (t *tree) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) (status fuse.Status) {
	c, status := t.create(&in.InHeader, name, typeDir|in.Mode&modePerm, 0)
	if !status.Ok() {
		return status
	}
	defer c.done(&status)
	if err := unix.Mkdirat(c.d.fd, name, hostMode(c.mode)); err != nil {
		return toStatus(err)
	}
	_, status = c.finish(-1, out)
	return status
}

// Mknod makes a file. All but a regular one is a regular file on the host, with
// the kind beside it.
func (t *tree) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) (status fuse.Status) {
	mode := in.Mode & (modeType | modePerm)
	rdev := in.Rdev
	switch mode & modeType {
	case 0:
		mode |= typeReg
		rdev = 0
	case typeReg, typeFIFO, typeSock:
		rdev = 0
	case typeChar, typeBlk:
	default:
		return fuse.EINVAL
	}
	c, status := t.create(&in.InHeader, name, mode, rdev)
	if !status.Ok() {
		return status
	}
	defer c.done(&status)
	if c.dir.ex.opt.Mirror && mode&modeType != typeReg {
		return fuse.EPERM
	}
	fd, err := c.openNew(unix.O_WRONLY)
	if err != nil {
		return toStatus(err)
	}
	defer unix.Close(fd)
	_, status = c.finish(fd, out)
	return status
}

// openNew makes the regular file.
func (c *creation) openNew(access int) (int, error) {
	perm := hostMode(c.mode)
	if c.mode&modeType != typeReg {
		perm = 0o600
	}
	return openBeneath(c.d.fd, c.name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|access, perm)
}

// Create makes a regular file and opens it, or opens one that is there already.
func (t *tree) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) (status fuse.Status) {
	c, status := t.create(&in.InHeader, name, typeReg|in.Mode&modePerm, 0)
	if !status.Ok() {
		return status
	}
	defer c.done(&status)
	fd, err := c.openNew(t.access(in.Flags))
	if err == unix.EEXIST && in.Flags&unix.O_EXCL == 0 {
		c.dir.ex.quota.add(-InodeCost)
		status = t.openExisting(c, in, out)
		if !status.Ok() {
			c.dir.ex.quota.add(InodeCost) // which done takes back
		}
		return status
	}
	if err != nil {
		return toStatus(err)
	}
	n, status := c.finish(fd, &out.EntryOut)
	if !status.Ok() {
		unix.Close(fd)
		return status
	}
	h, status := t.opened(n, fd, in.Flags&unix.O_ACCMODE != unix.O_RDONLY)
	if !status.Ok() {
		t.Forget(n.id, 1)
		unix.Unlinkat(c.d.fd, name, 0)
		return status
	}
	out.Fh, out.OpenOut.OpenFlags = h.id, n.ex.openFlags(false)
	return fuse.OK
}

// openExisting is Create for a name that somebody else made meanwhile.
func (t *tree) openExisting(c *creation, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if status := t.lookupIn(c.dir, c.d, c.name, &out.EntryOut); !status.Ok() {
		return status
	}
	open := fuse.OpenIn{InHeader: in.InHeader, Flags: in.Flags &^ (unix.O_CREAT | unix.O_EXCL)}
	open.NodeId = out.NodeId
	status := t.Open(nil, &open, &out.OpenOut)
	if !status.Ok() {
		t.Forget(out.NodeId, 1)
	}
	return status
}

// Symlink makes a symbolic link; its target is the guest's business.
func (t *tree) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) (status fuse.Status) {
	c, status := t.create(h, name, typeLink|0o777, 0)
	if !status.Ok() {
		return status
	}
	defer c.done(&status)
	if err := unix.Symlinkat(target, c.d.fd, name); err != nil {
		return toStatus(err)
	}
	_, status = c.finish(-1, out)
	return status
}

// Readlink reads the target of a symbolic link.
func (t *tree) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, status := t.node(h.NodeId)
	if !status.Ok() {
		return nil, status
	}
	if n.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	d, status := t.use(n)
	if !status.Ok() {
		return nil, status
	}
	defer t.release(d)
	b := make([]byte, unix.PathMax)
	k, err := unix.Readlinkat(d.fd, "", b)
	if err != nil {
		return nil, toStatus(err)
	}
	return b[:k], fuse.OK
}

// Link makes a further name of a file.
func (t *tree) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, status := t.node(in.Oldnodeid)
	if !status.Ok() {
		return status
	}
	dir, d, status := t.inWritable(in.NodeId, name)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	if n.ex != dir.ex {
		return fuse.EXDEV
	}
	if n.kind == unix.S_IFDIR {
		return fuse.EPERM
	}
	f, status := t.use(n)
	if !status.Ok() {
		return status
	}
	defer t.release(f)
	if err := unix.Linkat(unix.AT_FDCWD, procPath(f.fd), d.fd, name, unix.AT_SYMLINK_FOLLOW); err != nil {
		return toStatus(err)
	}
	return t.lookupIn(dir, d, name, out)
}

// Unlink removes a name of what is not a directory.
func (t *tree) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return t.remove(h.NodeId, name, 0)
}

// Rmdir removes an empty directory.
func (t *tree) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return t.remove(h.NodeId, name, unix.AT_REMOVEDIR)
}

func (t *tree) remove(id uint64, name string, flags int) fuse.Status {
	dir, d, status := t.inWritable(id, name)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return toStatus(err)
	}
	v := t.victim(dir.ex, &st)
	defer t.release(v)
	if err := unix.Unlinkat(d.fd, name, flags); err != nil {
		return toStatus(err)
	}
	t.gone(dir, name, &st, v)
	return fuse.OK
}

// victim is a descriptor of a file that is about to lose its last name, if the
// guest knows it: it may be in use, or about to be opened. The caller releases it.
func (t *tree) victim(e *export, st *unix.Stat_t) *desc {
	t.mu.Lock()
	n := t.known(e, st)
	t.mu.Unlock()
	if n == nil || !lastName(st) {
		return nil
	}
	d, _ := t.use(n)
	return d
}

func lastName(st *unix.Stat_t) bool { return st.Nlink == 1 || st.Mode&unix.S_IFMT == unix.S_IFDIR }

// gone takes note that the name of what st describes was removed. The descriptor
// is what remains of it, until the guest forgets it or too many others come.
func (t *tree) gone(dir *node, name string, st *unix.Stat_t, v *desc) {
	t.left(dir.ex, st)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.known(dir.ex, st)
	if n == nil {
		return
	}
	t.lost(n, place{dir, name})
	if lastName(st) && len(n.open) == 0 {
		delete(t.byKey, n.key) // the number may soon be another file's
	}
	if v != nil && len(n.names) == 0 {
		t.keep(n, v)
	}
}

// Rename moves a name, possibly over another or in exchange with it.
func (t *tree) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	const allowed = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE | unix.RENAME_WHITEOUT
	if in.Flags&^allowed != 0 || in.Flags&unix.RENAME_WHITEOUT != 0 {
		return fuse.EINVAL // a whiteout would be a device node on the host
	}
	src, sd, status := t.inWritable(in.NodeId, from)
	if !status.Ok() {
		return status
	}
	defer t.release(sd)
	dst, dd, status := t.inWritable(in.Newdir, to)
	if !status.Ok() {
		return status
	}
	defer t.release(dd)
	if src.ex != dst.ex {
		return fuse.EXDEV
	}
	var moved, over unix.Stat_t
	if err := unix.Fstatat(sd.fd, from, &moved, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return toStatus(err)
	}
	hadOver := unix.Fstatat(dd.fd, to, &over, unix.AT_SYMLINK_NOFOLLOW) == nil
	exchange := in.Flags&unix.RENAME_EXCHANGE != 0
	var v *desc
	if hadOver && !exchange {
		v = t.victim(dst.ex, &over)
		defer t.release(v)
	}
	if err := unix.Renameat2(sd.fd, from, dd.fd, to, uint(in.Flags)); err != nil {
		return toStatus(err)
	}
	same := hadOver && moved.Dev == over.Dev && moved.Ino == over.Ino
	if same {
		return fuse.OK // two names of one file: nothing was moved
	}
	if hadOver && !exchange {
		t.gone(dst, to, &over, v)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.relocate(src.ex, &moved, place{src, from}, place{dst, to})
	if exchange && hadOver {
		t.relocate(src.ex, &over, place{dst, to}, place{src, from})
	}
	return fuse.OK
}

// relocate takes note that a file was moved.
func (t *tree) relocate(e *export, st *unix.Stat_t, from, to place) {
	if n := t.known(e, st); n != nil && !to.dir.dropped {
		t.seen(n, to)
		t.lost(n, from)
	}
}
