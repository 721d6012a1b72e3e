package layer

import (
	"archive/tar"
	"fmt"
	"math"
	"strings"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// xattrRecord is how tar spells an extended attribute.
const xattrRecord = "SCHILY.xattr."

// attr reads what an entry says about its file.
func (a *applier) attr(h *tar.Header, kind uint16) (erofs.Attr, error) {
	if h.Uid < 0 || int64(h.Uid) >= math.MaxUint32 || h.Gid < 0 || int64(h.Gid) >= math.MaxUint32 {
		return erofs.Attr{}, fmt.Errorf("%w: owner %d:%d", ErrAttribute, h.Uid, h.Gid)
	}
	attr := erofs.Attr{
		Mode: kind | uint16(h.Mode&erofs.ModePerm), UID: uint32(h.Uid), GID: uint32(h.Gid),
	}
	if !h.ModTime.IsZero() {
		attr.Seconds, attr.Nanos = h.ModTime.Unix(), uint32(h.ModTime.Nanosecond())
	}
	a.xattrs = a.xattrs[:0]
	total := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok {
			continue
		}
		if !kept(name, kind) {
			a.stats.DroppedXattrs++
			continue
		}
		if total += len(name) + len(value); total > a.limits.XattrBytes {
			return erofs.Attr{}, fmt.Errorf("%w: extended attributes: %w", ErrAttribute, ErrLimit)
		}
		if len(value) > erofs.MaxXattrValue {
			return erofs.Attr{}, fmt.Errorf("%w: extended attribute %.300q of %d bytes", ErrAttribute, name, len(value))
		}
		a.xattrs = append(a.xattrs, erofs.Xattr{Name: name, Value: []byte(value)})
	}
	attr.Xattrs = a.xattrs // the writer sorts them: a map has no order
	return attr, nil
}

// kept tells whether an attribute goes to the image. Those that Linux would refuse on
// such a file, as runtimes find and ignore, do not, nor do those by which overlayfs
// is told what to hide: an image must not steer the guest's root mount.
func kept(name string, kind uint16) bool {
	switch {
	case !erofs.XattrSupported(name):
		return false
	case strings.HasPrefix(name, "user."):
		return (kind == erofs.ModeRegular || kind == erofs.ModeDir) && !strings.HasPrefix(name, "user.overlay.")
	case strings.HasPrefix(name, "trusted.overlay."):
		return false
	case strings.HasPrefix(name, "system."):
		return kind != erofs.ModeSymlink
	}
	return true
}
