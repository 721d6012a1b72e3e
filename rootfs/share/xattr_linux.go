package share

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	maxXattr     = 64 << 10 // XATTR_SIZE_MAX and XATTR_LIST_MAX of the kernel
	maxXattrName = 255

	// maxXattrs bounds the attributes of one file where the file system keeps
	// them in memory.
	maxXattrs = 128
)

// hostXattr is the host's name of a guest's attribute.
func (n *node) hostXattr(name string) (string, fuse.Status) {
	space, rest, ok := strings.Cut(name, ".")
	if !ok || rest == "" || len(name) > maxXattrName {
		return "", fuse.EINVAL
	}
	if n.ex.opt.Mirror || n.ex.store == "user." {
		if space == "user" {
			if strings.HasPrefix(rest, attrSpace) {
				return "", fuse.EPERM // ours
			}
			return name, fuse.OK
		}
	}
	switch space {
	case "user", "trusted", "security":
	default:
		return "", fuse.ENOTSUP
	}
	host := n.ex.attr(n.kind, attrGuest+name)
	if host == "" {
		return "", fuse.ENOTSUP
	}
	if len(host) > maxXattrName {
		return "", fuse.ERANGE
	}
	return host, fuse.OK
}

// guestXattr is the guest's name of a host's attribute, or "" for one that it
// does not see.
func (n *node) guestXattr(host string) string {
	if prefix := n.ex.attr(n.kind, attrGuest); prefix != "" && strings.HasPrefix(host, prefix) {
		return host[len(prefix):]
	}
	if strings.HasPrefix(host, "user.") && !strings.HasPrefix(host, "user."+attrSpace) && (n.ex.opt.Mirror || n.ex.store == "user.") {
		return host
	}
	return ""
}

// xattrNode returns the node and a descriptor of it, which the caller releases.
func (t *tree) xattrNode(id uint64, write bool) (*node, *desc, fuse.Status) {
	if id == rootID {
		return nil, nil, fuse.ENOTSUP
	}
	n, status := t.node(id)
	if !status.Ok() {
		return nil, nil, status
	}
	if write && n.ex.opt.ReadOnly {
		return nil, nil, fuse.EROFS
	}
	d, status := t.use(n)
	return n, d, status
}

// GetXAttr reads an attribute.
func (t *tree) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if h.NodeId == rootID {
		return 0, fuse.ENODATA
	}
	n, status := t.node(h.NodeId)
	if !status.Ok() {
		return 0, status
	}
	host, status := n.hostXattr(attr)
	switch {
	case status == fuse.EPERM:
		return 0, fuse.ENODATA
	case !status.Ok():
		return 0, status
	}
	s, status := t.locate(n)
	if !status.Ok() {
		return 0, status
	}
	defer t.release(s.desc)
	// The host may change the value; the guest's buffer must not be read back.
	buf := make([]byte, min(len(dest), maxXattr))
	k, err := s.getxattr(host, buf)
	if err != nil {
		return 0, toStatus(err)
	}
	if len(dest) > 0 {
		copy(dest, buf[:k])
	}
	return uint32(k), fuse.OK
}

// ListXAttr lists the names of the guest's attributes.
func (t *tree) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if h.NodeId == rootID {
		return 0, fuse.OK
	}
	n, d, status := t.xattrNode(h.NodeId, false)
	if !status.Ok() {
		return 0, status
	}
	defer t.release(d)
	names, err := listXattrs(d)
	if err != nil {
		return 0, toStatus(err)
	}
	var list []byte
	for _, host := range names {
		if name := n.guestXattr(host); name != "" {
			list = append(append(list, name...), 0)
		}
	}
	if len(dest) > 0 {
		if len(list) > len(dest) {
			return 0, fuse.ERANGE
		}
		copy(dest, list)
	}
	return uint32(len(list)), fuse.OK
}

func listXattrs(d *desc) ([]string, error) {
	buf := make([]byte, maxXattr)
	k, err := unix.Listxattr(procPath(d.fd), buf)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range strings.SplitSeq(string(buf[:k]), "\x00") {
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// SetXAttr sets an attribute.
func (t *tree) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	n, d, status := t.xattrNode(in.NodeId, true)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	host, status := n.hostXattr(attr)
	if !status.Ok() {
		return status
	}
	if len(data) > maxXattr {
		return fuse.Status(unix.E2BIG)
	}
	if strings.HasPrefix(host, "trusted.") {
		if names, err := listXattrs(d); err != nil || len(names) >= maxXattrs {
			return fuse.Status(unix.ENOSPC)
		}
	}
	if attr == capability {
		n.caps.Store(capsUnknown)
	}
	return toStatus(unix.Setxattr(procPath(d.fd), host, data, int(in.Flags)&(unix.XATTR_CREATE|unix.XATTR_REPLACE)))
}

// RemoveXAttr removes an attribute.
func (t *tree) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	n, d, status := t.xattrNode(h.NodeId, true)
	if !status.Ok() {
		return status
	}
	defer t.release(d)
	host, status := n.hostXattr(attr)
	if !status.Ok() {
		return status
	}
	return toStatus(unix.Removexattr(procPath(d.fd), host))
}

// Ioctl has nothing to offer.
func (t *tree) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
