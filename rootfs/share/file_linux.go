package share

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	maxIovecs = 1024 // UIO_MAXIOV of the kernel
	// maxCopy bounds what one COPY_FILE_RANGE moves, so that it does not take
	// too long; the guest goes on where it ended.
	maxCopy = 16 << 20

	// openKept are the flags of an open that reach the host. O_APPEND comes with
	// each write again, O_DIRECT would make demands on the guest's buffers.
	openKept = unix.O_ACCMODE | unix.O_SYNC | unix.O_DSYNC
	// openAlways: whatever is opened must not block, nor become our terminal.
	openAlways = unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY

	capability = "security.capability"
)

// What is known of a file's capabilities.
const (
	capsUnknown = iota
	capsNone
)

// access is how a file is opened on the host.
func (t *tree) access(flags uint32) int {
	f := int(flags) & openKept
	if t.cfg.WritebackCache && f&unix.O_ACCMODE == unix.O_WRONLY {
		f = f&^unix.O_ACCMODE | unix.O_RDWR // the guest reads what it writes only partly
	}
	return f
}

// openFlags tells the guest what to do with data that it has cached.
func (e *export) openFlags(same bool) uint32 {
	if e.opt.Cache == CacheAlways || same && e.opt.Cache == CacheAuto {
		return fuse.FOPEN_KEEP_CACHE
	}
	return 0
}

// reopen opens the regular file behind a descriptor of any kind for input and
// output. The caller has checked what it is.
func reopen(d *desc, flags int) (int, error) {
	for {
		fd, err := unix.Open(procPath(d.fd), flags|openAlways, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// Open opens a regular file.
func (t *tree) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, status := t.node(in.NodeId)
	if !status.Ok() {
		return status
	}
	write := in.Flags&unix.O_ACCMODE != unix.O_RDONLY
	truncate := in.Flags&unix.O_TRUNC != 0
	switch {
	case n.kind == unix.S_IFDIR:
		return fuse.EISDIR
	case n.kind != unix.S_IFREG:
		return fuse.EPERM // the guest's kernel has pipes and devices of its own
	case n.ex.opt.ReadOnly && (write || truncate):
		return fuse.EROFS
	}
	d, status := t.use(n)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	fd, err := reopen(d, t.access(in.Flags))
	if err != nil {
		return toStatus(err)
	}
	if truncate {
		if err := t.cut(n, d, 0, in.Mode&fuse.OPEN_KILL_SUIDGID != 0); err != nil {
			unix.Close(fd)
			return toStatus(err)
		}
	}
	var st unix.Stat_t
	same := unix.Fstat(fd, &st) == nil && t.restamp(n, &st)
	h, status := t.opened(n, fd, write)
	if !status.Ok() {
		return status
	}
	out.Fh, out.OpenFlags = h.id, n.ex.openFlags(same)
	return fuse.OK
}

// restamp remembers a file's content by size and time, and reports whether it is
// what the guest may have in its cache.
func (t *tree) restamp(n *node, st *unix.Stat_t) bool {
	now := stamp{st.Size, st.Mtim, st.Ctim, true}
	t.mu.Lock()
	defer t.mu.Unlock()
	same := n.stamp.valid && n.stamp == now
	n.stamp = now
	return same
}

// Release closes a file. What the guest wrote is what it has in its cache.
func (t *tree) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	h, status := t.handle(in.NodeId, in.Fh)
	if status.Ok() && h.writable {
		var st unix.Stat_t
		if unix.Fstat(h.fd, &st) == nil {
			t.restamp(h.node, &st)
		}
	}
	if status.Ok() {
		t.release(h.desc)
	}
	t.closeHandle(in.NodeId, in.Fh)
}

// file returns an open regular file; the caller releases it.
func (t *tree) file(node, fh uint64, write bool) (*handle, fuse.Status) {
	h, status := t.handle(node, fh)
	if !status.Ok() {
		return nil, status
	}
	if h.dir != nil || write && (!h.writable || h.node.ex.opt.ReadOnly) {
		t.release(h.desc)
		return nil, fuse.EBADF
	}
	return h, fuse.OK
}

// reading is a read that happens when it is known where to: straight into the
// guest's memory.
type reading struct {
	t    *tree
	h    *handle
	off  int64
	size int
}

func (r *reading) Size() int { return r.size }

func (r *reading) Done() { r.t.release(r.h.desc) }

// Bytes reads into one buffer.
func (r *reading) Bytes(buf []byte) ([]byte, fuse.Status) {
	n, status := r.Readv([][]byte{buf[:min(len(buf), r.size)]})
	return buf[:n], status
}

// Readv fills dst up to the end of the file.
func (r *reading) Readv(dst [][]byte) (int, fuse.Status) {
	done := 0
	for len(dst) > 0 {
		n, err := unix.Preadv(r.h.fd, dst[:min(len(dst), maxIovecs)], r.off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil && done == 0 {
			return 0, toStatus(err)
		}
		if err != nil || n == 0 {
			break
		}
		done += n
		dst = skip(dst, n)
		for len(dst) > 0 && len(dst[0]) == 0 {
			dst = dst[1:]
		}
	}
	return done, fuse.OK
}

// Read prepares a read.
func (t *tree) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, status := t.file(in.NodeId, in.Fh, false)
	if !status.Ok() {
		return nil, status
	}
	if in.Offset > math.MaxInt64-MaxRequestBytes {
		t.release(h.desc)
		return nil, fuse.EINVAL
	}
	return &reading{t, h, int64(in.Offset), min(int(in.Size), len(buf))}, fuse.OK
}

// Write is Writev for one buffer.
func (t *tree) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return t.Writev(cancel, in, [][]byte{data})
}

// Writev writes straight from the guest's memory.
func (t *tree) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	h, status := t.file(in.NodeId, in.Fh, true)
	if !status.Ok() {
		return 0, status
	}
	defer t.release(h.desc)
	if in.Offset > math.MaxInt64-MaxRequestBytes {
		return 0, fuse.Status(unix.EFBIG)
	}
	// A write from the guest's cache knows where it belongs.
	app := in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0
	h.node.dropCaps(h.desc)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := h.node.killSpecial(h.desc); err != nil {
			return 0, toStatus(err)
		}
	}
	var n int
	want := int64(length(data))
	err := h.node.grow(h.fd, want, func(room int64) error {
		if room < want && (app || !hasData(h.fd, int64(in.Offset), want)) {
			if room == 0 {
				return unix.ENOSPC
			}
			data = first(data, int(room))
		}
		var err error
		n, err = pwritev(h.fd, data, int64(in.Offset), app)
		return err
	})
	if n > 0 {
		err = nil
	}
	return uint32(n), toStatus(err)
}

// pwritev writes all of bufs, at the end of the file if app.
func pwritev(fd int, bufs [][]byte, off int64, app bool) (int, error) {
	done, flags := 0, 0
	if app {
		flags = unix.RWF_APPEND
	}
	for {
		for len(bufs) > 0 && len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
		if len(bufs) == 0 {
			return done, nil
		}
		some := bufs[:min(len(bufs), maxIovecs)]
		var n int
		var err error
		if app {
			n, err = unix.Pwritev2(fd, some, off+int64(done), flags)
		} else {
			n, err = unix.Pwritev(fd, some, off+int64(done))
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return done, err
		}
		done += n
		bufs = skip(bufs, n)
	}
}

// first is the first n bytes.
func first(iov [][]byte, n int) [][]byte {
	var out [][]byte
	for _, p := range iov {
		if n == 0 {
			break
		}
		p = p[:min(len(p), n)]
		out, n = append(out, p), n-len(p)
	}
	return out
}

// truncate changes the size, by the guest's handle if it has one.
func (t *tree) truncate(n *node, d *desc, in *fuse.SetAttrIn, size uint64) fuse.Status {
	if size > math.MaxInt64 {
		return fuse.Status(unix.EFBIG)
	}
	if n.kind != unix.S_IFREG {
		return fuse.EINVAL
	}
	return toStatus(t.cut(n, d, int64(size), in.Valid&fuse.FATTR_KILL_SUIDGID != 0))
}

// cut makes the file behind a descriptor that long.
func (t *tree) cut(n *node, d *desc, size int64, kill bool) error {
	n.dropCaps(d)
	if kill {
		if err := n.killSpecial(d); err != nil {
			return err
		}
	}
	fd, err := reopen(d, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return n.grow(fd, 0, func(int64) error { return unix.Ftruncate(fd, size) })
}

// dropCaps removes the capabilities of a file that is changed.
func (n *node) dropCaps(d *desc) {
	if n.caps.Load() == capsNone || n.kind != unix.S_IFREG {
		return
	}
	n.caps.Store(capsNone)
	if name := n.ex.attr(n.kind, attrGuest+capability); name != "" {
		unix.Removexattr(procPath(d.fd), name) // normally there are none
	}
}

// killSpecial takes set-user-ID and set-group-ID from a file that is changed.
func (n *node) killSpecial(d *desc) error {
	if n.ex.opt.Mirror {
		return nil // it has none
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}
	o := n.ex.owner(site{d, ""}, &st)
	if mode := withoutSpecial(o.mode); mode != o.mode {
		o.mode = mode
		return n.ex.storeOwner(d, &st, o)
	}
	return nil
}

// Flush does nothing: the guest does without after the first answer.
func (t *tree) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync makes a file durable.
func (t *tree) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, status := t.handle(in.NodeId, in.Fh)
	if !status.Ok() {
		return status
	}
	defer t.release(h.desc)
	for {
		var err error
		if in.FsyncFlags&1 != 0 {
			err = unix.Fdatasync(h.fd)
		} else {
			err = unix.Fsync(h.fd)
		}
		if err != unix.EINTR {
			return toStatus(err)
		}
	}
}

// Lseek finds data and holes.
func (t *tree) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, status := t.file(in.NodeId, in.Fh, false)
	if !status.Ok() {
		return status
	}
	defer t.release(h.desc)
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE || in.Offset > math.MaxInt64 {
		return fuse.EINVAL
	}
	// The offset of the host's file is used for nothing else.
	off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
	if err != nil {
		return toStatus(err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// Fallocate allocates, frees or moves space of a file.
func (t *tree) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, status := t.file(in.NodeId, in.Fh, true)
	if !status.Ok() {
		return status
	}
	defer t.release(h.desc)
	if in.Offset > math.MaxInt64 || in.Length > math.MaxInt64 {
		return fuse.Status(unix.EFBIG)
	}
	h.node.dropCaps(h.desc)
	want := int64(in.Length)
	if in.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_COLLAPSE_RANGE) != 0 {
		want = 0
	}
	return toStatus(h.node.grow(h.fd, want, func(room int64) error {
		if room < want && !hasData(h.fd, int64(in.Offset), want) {
			return unix.ENOSPC
		}
		for {
			err := unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length))
			if err != unix.EINTR {
				return err
			}
		}
	}))
}

// CopyFileRange copies between two files on the host.
func (t *tree) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, status := t.file(in.NodeId, in.FhIn, false)
	if !status.Ok() {
		return 0, status
	}
	defer t.release(src.desc)
	dst, status := t.file(in.NodeIdOut, in.FhOut, true)
	if !status.Ok() {
		return 0, status
	}
	defer t.release(dst.desc)
	if in.Flags != 0 || in.OffIn > math.MaxInt64-maxCopy || in.OffOut > math.MaxInt64-maxCopy {
		return 0, fuse.EINVAL
	}
	dst.node.dropCaps(dst.desc)
	want := int64(min(in.Len, maxCopy))
	var n int
	err := dst.node.grow(dst.fd, want, func(room int64) (err error) {
		if room < want && !hasData(dst.fd, int64(in.OffOut), want) {
			if want = room; want == 0 {
				return unix.ENOSPC
			}
		}
		from, to := int64(in.OffIn), int64(in.OffOut)
		n, err = unix.CopyFileRange(src.fd, &from, dst.fd, &to, int(want), 0)
		return err
	})
	return uint32(max(n, 0)), toStatus(err)
}

// Access is left to the guest's kernel.
func (t *tree) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }
