package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// plain is the owner of a file as the host's own attributes show it.
func (e *export) plain(st *unix.Stat_t) owner {
	o := owner{uid: st.Uid, gid: st.Gid, mode: st.Mode, rdev: uint32(st.Rdev)}
	if !e.opt.Mirror {
		if o.uid == e.uid {
			o.uid = 0
		}
		if o.gid == e.gid {
			o.gid = 0
		}
	}
	return o
}

// owner is the owner of a file as the guest sees it.
func (e *export) owner(s site, st *unix.Stat_t) owner {
	kind := st.Mode & unix.S_IFMT
	if name := e.attr(kind, attrStat); name != "" && !e.opt.Mirror {
		var b [maxOwner]byte
		if n, err := s.getxattr(name, b[:]); err == nil {
			if o, ok := parseOwner(string(b[:n]), kind); ok {
				return o
			}
		}
	}
	return e.plain(st)
}

// fill writes the attributes of a file.
func (t *tree) fill(a *fuse.Attr, e *export, s site, st *unix.Stat_t) {
	o := e.owner(s, st)
	*a = fuse.Attr{
		Ino:       t.guestIno(uint64(st.Dev), st.Ino),
		Size:      uint64(st.Size),
		Blocks:    uint64(st.Blocks),
		Atime:     uint64(st.Atim.Sec),
		Mtime:     uint64(st.Mtim.Sec),
		Ctime:     uint64(st.Ctim.Sec),
		Atimensec: uint32(st.Atim.Nsec),
		Mtimensec: uint32(st.Mtim.Nsec),
		Ctimensec: uint32(st.Ctim.Nsec),
		Mode:      o.mode,
		Nlink:     uint32(st.Nlink),
		Owner:     fuse.Owner{Uid: o.uid, Gid: o.gid},
		Rdev:      o.rdev,
		Blksize:   uint32(st.Blksize),
	}
}

// entry answers a lookup of what is at a site.
func (t *tree) entry(e *export, at place, s site, st *unix.Stat_t, out *fuse.EntryOut) (*node, fuse.Status) {
	n, status := t.enter(e, at, st)
	if !status.Ok() {
		return nil, status
	}
	out.NodeId, out.Generation = n.id, 1
	out.SetEntryTimeout(e.opt.Cache.timeout())
	out.SetAttrTimeout(e.opt.Cache.timeout())
	t.fill(&out.Attr, e, s, st)
	return n, fuse.OK
}

// stat finds n and reads its attributes. The caller releases the site's desc.
func (t *tree) stat(n *node, st *unix.Stat_t) (site, fuse.Status) {
	for range placeTries {
		s, status := t.locate(n)
		if !status.Ok() {
			return site{}, status
		}
		err := s.stat(st)
		if err == nil && n.is(st) {
			return s, fuse.OK
		}
		t.release(s.desc)
		if err != nil && staleStatus(err) != fuse.Status(unix.ESTALE) {
			return site{}, toStatus(err)
		}
		t.rotate(n)
	}
	return site{}, fuse.Status(unix.ESTALE)
}

// GetAttr reads attributes.
func (t *tree) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == rootID {
		t.rootAttr(&out.Attr)
		return fuse.OK
	}
	n, status := t.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	return t.attrOut(n, out)
}

func (t *tree) attrOut(n *node, out *fuse.AttrOut) fuse.Status {
	var st unix.Stat_t
	s, status := t.stat(n, &st)
	if !status.Ok() {
		return status
	}
	defer t.release(s.desc)
	t.fill(&out.Attr, n.ex, s, &st)
	out.SetTimeout(n.ex.opt.Cache.timeout())
	return fuse.OK
}

// SetAttr changes size, owner, mode and times. It stops at the first that fails.
func (t *tree) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == rootID {
		return fuse.EROFS
	}
	n, status := t.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	if n.ex.opt.ReadOnly {
		return fuse.EROFS
	}
	d, status := t.use(n)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	if size, ok := in.GetSize(); ok {
		if status := t.truncate(n, d, in, size); !status.Ok() {
			return status
		}
	}
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		if err := n.ex.setOwner(n, d, in); err != nil {
			return toStatus(err)
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) != 0 {
		if err := setTimes(d, in); err != nil {
			return toStatus(err)
		}
	}
	return t.attrOut(n, out)
}

func setTimes(d *desc, in *fuse.SetAttrIn) error {
	one := func(set, now uint32, sec uint64, nsec uint32) unix.Timespec {
		switch {
		case in.Valid&set == 0:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case in.Valid&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		case nsec >= 1e9:
			return unix.Timespec{Sec: int64(sec)}
		}
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
	}
	ts := []unix.Timespec{
		one(fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		one(fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(d.fd), ts, 0)
}

// setOwner is chmod and chown.
func (e *export) setOwner(n *node, d *desc, in *fuse.SetAttrIn) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}
	old := e.owner(site{d, ""}, &st)
	want := old
	uid, newUID := in.GetUID()
	gid, newGID := in.GetGID()
	if newUID {
		want.uid = uid
	}
	if newGID {
		want.gid = gid
	}
	if newUID || newGID {
		// HANDLE_KILLPRIV_V2: a new owner takes the special bits away, unless
		// the guest says otherwise in the same breath.
		if want.mode&modeType != typeDir {
			want.mode = withoutSpecial(want.mode)
		}
		n.dropCaps(d)
	}
	if mode, ok := in.GetMode(); ok {
		want.mode = want.mode&modeType | mode&modePerm
	}
	if want == old {
		return nil
	}
	if e.opt.Mirror {
		return mirrorOwner(d, &st, want, newUID || newGID)
	}
	return e.storeOwner(d, &st, want)
}

// withoutSpecial is a mode without set-user-ID, and without set-group-ID if that
// means anything.
func withoutSpecial(mode uint32) uint32 {
	mode &^= unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	return mode
}

// storeOwner keeps an owner beside the file.
func (e *export) storeOwner(d *desc, st *unix.Stat_t, want owner) error {
	kind := st.Mode & unix.S_IFMT
	if name := e.attr(kind, attrStat); name != "" {
		return unix.Setxattr(procPath(d.fd), name, []byte(want.String()), 0)
	}
	if kind == unix.S_IFLNK {
		return nil
	}
	plain := e.plain(st)
	if want.uid != plain.uid || want.gid != plain.gid || want.mode&modeType != plain.mode&modeType {
		return unix.EPERM
	}
	return unix.Fchmodat(unix.AT_FDCWD, procPath(d.fd), hostMode(want.mode), 0)
}

// hostMode is the permissions of a file on the host: the guest's, without special
// bits, and such that this process can use it.
func hostMode(mode uint32) uint32 {
	if mode&modeType == typeDir {
		return mode&0o777 | 0o700
	}
	return mode&0o777 | 0o600
}

// mirrorOwner applies an owner to the host's file.
func mirrorOwner(d *desc, st *unix.Stat_t, want owner, chown bool) error {
	if chown {
		if err := unix.Chown(procPath(d.fd), int(want.uid), int(want.gid)); err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	return unix.Fchmodat(unix.AT_FDCWD, procPath(d.fd), mirrorMode(want.mode), 0)
}

// mirrorMode is a mode that the host may have: no file is set-user-ID.
func mirrorMode(mode uint32) uint32 {
	if mode&modeType == typeDir {
		return mode & modePerm
	}
	return mode & 0o777
}

// StatFs says how full the export's file system is, or its quota.
func (t *tree) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if in.NodeId == rootID {
		out.Bsize, out.Frsize, out.NameLen = 4096, 4096, MaxName
		return fuse.OK
	}
	n, status := t.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(n.ex.fd.fd, &st); err != nil {
		return toStatus(err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize, out.NameLen = uint32(st.Bsize), uint32(st.Frsize), MaxName
	if out.Frsize == 0 {
		out.Frsize = out.Bsize
	}
	n.ex.quota.limitStatfs(out)
	return fuse.OK
}
