package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// Names in layers that say what to hide.
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh."     // of an old format's own files
	whiteoutOpaque = ".wh..wh..opq" // hides all that lower layers have in the directory
)

// applier applies entries to the tree of a Writer.
type applier struct {
	w         *erofs.Writer
	limits    Limits
	fileBytes int64  // of all files so far, holes counted
	mark      uint16 // of names that the current layer has made
	entry     string // at hand
	stats     Stats
	xattrs    []erofs.Xattr
}

// content is the bytes of an entry. It remembers its error, so that a broken layer
// can be told from an image file that cannot be written.
type content struct {
	*tar.Reader
	err error
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// apply applies one entry.
func (a *applier) apply(h *tar.Header, r *content) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // comments, mostly: runtimes skip it too
	}
	if len(h.Name) > a.limits.PathBytes || len(h.Linkname) > a.limits.PathBytes {
		return fmt.Errorf("%w: path longer than %d: %w", ErrPath, a.limits.PathBytes, ErrLimit)
	}
	name := path.Clean("/" + h.Name)[1:]
	if name == "" {
		return a.root(h)
	}
	if strings.HasPrefix(name, whiteoutMeta) && name != whiteoutOpaque {
		return nil
	}
	parent, base := path.Split(name)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return a.whiteout(parent, base)
	}
	if len(base) > erofs.MaxName {
		return fmt.Errorf("%w: name longer than %d bytes", ErrPath, erofs.MaxName)
	}
	dir, err := a.resolve(parent, true)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeLink:
		return a.link(dir, base, h)
	case tar.TypeDir:
		if ino, ok := a.w.Lookup(dir, base); ok && isDir(a.w.Mode(ino)) {
			return a.merge(dir, base, ino, h)
		}
	}
	ino, err := a.make(h, r)
	if err != nil {
		return err
	}
	return a.put(dir, base, ino)
}

// root gives the root directory its attributes.
func (a *applier) root(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return fmt.Errorf("%w: the root can only be a directory", ErrPath)
	}
	attr, err := a.attr(h, erofs.ModeDir)
	if err != nil {
		return err
	}
	return wrap(a.w.SetAttr(erofs.Root, attr))
}

// merge gives a directory that exists the attributes of an entry.
func (a *applier) merge(dir erofs.Ino, base string, ino erofs.Ino, h *tar.Header) error {
	attr, err := a.attr(h, erofs.ModeDir)
	if err != nil {
		return err
	}
	a.w.Mark(dir, base, true)
	return wrap(a.w.SetAttr(ino, attr))
}

// put names a file; what had the name goes, with all below it.
func (a *applier) put(dir erofs.Ino, base string, ino erofs.Ino) error {
	if isDir(a.w.Mode(ino)) && a.w.Depth(dir) >= a.limits.PathDepth {
		return fmt.Errorf("%w: directories more than %d deep: %w", ErrPath, a.limits.PathDepth, ErrLimit)
	}
	a.w.Remove(dir, base)
	return wrap(a.w.Link(dir, base, ino))
}

// make makes the file that an entry describes.
func (a *applier) make(h *tar.Header, r *content) (erofs.Ino, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		attr, err := a.attr(h, erofs.ModeRegular)
		if err != nil {
			return 0, err
		}
		if h.Size > a.limits.FileBytes {
			return 0, fmt.Errorf("file of %d bytes: %w", h.Size, ErrLimit)
		}
		if a.fileBytes += h.Size; a.fileBytes > a.limits.TotalBytes {
			return 0, fmt.Errorf("more than %d bytes in all files: %w", a.limits.TotalBytes, ErrLimit)
		}
		ino, err := a.w.File(attr, h.Size, r)
		if errors.Is(err, io.ErrUnexpectedEOF) && r.err == nil {
			r.err = io.ErrUnexpectedEOF
		}
		return ino, wrap(err)
	case tar.TypeSymlink:
		attr, err := a.attr(h, erofs.ModeSymlink)
		if err != nil {
			return 0, err
		}
		attr.Mode = erofs.ModeSymlink | 0o777 // Linux knows no other
		if h.Linkname == "" || len(h.Linkname) > erofs.MaxTarget || strings.IndexByte(h.Linkname, 0) >= 0 {
			return 0, fmt.Errorf("%w: target of the symbolic link", ErrPath)
		}
		ino, err := a.w.Symlink(attr, h.Linkname)
		return ino, wrap(err)
	case tar.TypeDir, tar.TypeFifo:
		kind := uint16(erofs.ModeDir)
		if h.Typeflag == tar.TypeFifo {
			kind = erofs.ModeFifo
		}
		attr, err := a.attr(h, kind)
		if err != nil {
			return 0, err
		}
		ino, err := a.w.Node(attr)
		return ino, wrap(err)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint16(erofs.ModeChar)
		if h.Typeflag == tar.TypeBlock {
			kind = erofs.ModeBlock
		}
		attr, err := a.attr(h, kind)
		if err != nil {
			return 0, err
		}
		var ok bool
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return 0, fmt.Errorf("%w: device %d:%d", ErrAttribute, h.Devmajor, h.Devminor)
		}
		if attr.Device, ok = erofs.Device(uint32(h.Devmajor), uint32(h.Devminor)); !ok {
			return 0, fmt.Errorf("%w: device %d:%d", ErrAttribute, h.Devmajor, h.Devminor)
		}
		ino, err := a.w.Node(attr)
		return ino, wrap(err)
	}
	return 0, fmt.Errorf("%w: type %q", ErrUnsupported, h.Typeflag)
}

// link gives a file one more name. The attributes of such an entry do not count:
// they are those of the file, or nothing. What has the name goes first, as with
// runtimes: a target that is found only by way of it does not exist.
func (a *applier) link(dir erofs.Ino, base string, h *tar.Header) error {
	a.w.Remove(dir, base)
	target := path.Clean("/" + h.Linkname)[1:]
	if target == "" {
		return fmt.Errorf("%w: to the root", ErrLink)
	}
	parent, last := path.Split(target)
	from, err := a.resolve(parent, false)
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	ino, ok := erofs.Ino(0), false
	if err == nil {
		ino, ok = a.w.Lookup(from, last)
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: %.300q does not exist", ErrLink, h.Linkname)
	case isDir(a.w.Mode(ino)):
		return fmt.Errorf("%w: %.300q is a directory", ErrLink, h.Linkname)
	}
	return a.put(dir, base, ino)
}

func isDir(mode uint16) bool { return mode&erofs.ModeType == erofs.ModeDir }

// wrap drops the mention of package erofs from its complaints, which are about the
// image file by then: what an entry may have wrong was checked before.
func wrap(err error) error {
	var e *erofs.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
