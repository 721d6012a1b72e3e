package patch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

const maxLinks = 40 // symbolic links followed for one path, as Linux does

// view is what the guest will see: the layer in the making above the image.
type view struct {
	w     *erofs.Writer
	lower Lower
	// What a directory or file of the layer is, beyond what the Writer knows.
	merged    map[erofs.Ino]bool // directory through which the image's is seen
	whiteouts map[erofs.Ino]bool
	files     map[erofs.Ino]file
}

// file is a regular file of the layer: how to read it, should it be appended to.
type file struct {
	attr erofs.Attr
	size int64
	open func() (io.ReadCloser, error)
}

// dir is a directory of the view.
type dir struct {
	path   string    // from the root, "." for the root itself
	ino    erofs.Ino // in the layer; 0 when it is not there yet
	lower  bool      // the image's directory is seen through it
	parent *dir      // the root's is itself
}

// place is a name in a directory, and what is there.
type place struct {
	dir   *dir
	name  string
	ino   erofs.Ino // in the layer, 0 when it is not there
	below *Info     // in the image, nil when it is not there or hidden
	mode  uint16    // 0: nothing there
}

func (p *place) path() string { return join(p.dir.path, p.name) }
func (p *place) kind() uint16 { return p.mode & erofs.ModeType }
func (p *place) isDir() bool  { return p.kind() == erofs.ModeDir }
func (p *place) absent() bool { return p.mode == 0 }

// asDir returns the directory that is there.
func (p *place) asDir() *dir {
	return &dir{p.path(), p.ino, p.below != nil && p.below.isDir(), p.dir}
}

// at looks at a name.
func (v *view) at(d *dir, name string) (*place, error) {
	p := &place{dir: d, name: name}
	if d.ino != 0 {
		p.ino, _ = v.w.Lookup(d.ino, name)
	}
	if p.ino != 0 && !v.merged[p.ino] {
		if !v.whiteouts[p.ino] {
			p.mode = v.w.Mode(p.ino)
		}
		return p, nil
	}
	if !d.lower {
		return p, nil
	}
	info, err := v.lower.Lstat(p.path())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	} else if err != nil {
		return nil, err
	}
	p.below = &info
	p.mode = info.Mode
	return p, nil
}

// target reads a symbolic link.
func (v *view) target(p *place) (string, error) {
	if p.ino != 0 {
		return v.w.Target(p.ino)
	}
	return v.lower.Readlink(p.path())
}

// resolve finds the place of a path. Links in its parents are followed, and with
// follow set the last element as well; ".." in them ends at the root. Parents that
// are missing are made in the layer with create set, else the place is nil.
func (v *view) resolve(root *dir, name string, follow, create bool) (*place, error) {
	at, links := root, 0
	todo := []string{name}
	for len(todo) > 0 {
		rest := strings.TrimLeft(todo[len(todo)-1], "/")
		todo = todo[:len(todo)-1]
		part, more, _ := strings.Cut(rest, "/")
		if strings.Trim(more, "/") != "" {
			todo = append(todo, more)
		}
		switch part {
		case "", ".":
			continue
		case "..":
			at = at.parent
			continue
		}
		p, err := v.at(at, part)
		if err != nil {
			return nil, err
		}
		last := len(todo) == 0
		switch {
		case p.kind() == erofs.ModeSymlink && (!last || follow):
			if links++; links > maxLinks {
				return nil, ErrLoop
			}
			target, err := v.target(p)
			if err != nil {
				return nil, err
			}
			if strings.HasPrefix(target, "/") {
				at = root
			}
			todo = append(todo, target)
		case last:
			return p, nil
		case p.isDir():
			at = p.asDir()
		case p.absent() && create:
			if at, err = v.mkdir(p, erofs.Attr{Mode: erofs.ModeDir | 0o755}); err != nil {
				return nil, err
			}
		case p.absent():
			return nil, nil
		default:
			return nil, fmt.Errorf("%.300q: %w", p.path(), ErrNotDir)
		}
	}
	// The path ended with a directory that is known already: the root, or what a
	// link named by "..".
	return &place{dir: at, mode: erofs.ModeDir}, nil
}

// raise puts a directory of the image, and those above it, into the layer: it must
// be there to hold what is new in it, with the attributes that it has.
func (v *view) raise(d *dir) error {
	if d.ino != 0 {
		return nil
	}
	if err := v.raise(d.parent); err != nil {
		return err
	}
	if ino, ok := v.w.Lookup(d.parent.ino, last(d.path)); ok {
		d.ino = ino // by way of another path
		return nil
	}
	info, err := v.lower.Lstat(d.path)
	if err != nil {
		return err
	}
	ino, err := v.w.Node(info.attr())
	if err != nil {
		return err
	}
	v.merged[ino] = true
	d.ino = ino
	return v.w.Link(d.parent.ino, last(d.path), ino)
}

func last(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// attr is what a file of the image says about itself, for a copy of it.
func (i *Info) attr() erofs.Attr {
	a := erofs.Attr{
		Mode: i.Mode, UID: i.UID, GID: i.GID,
		Seconds: i.ModTime.Unix(), Nanos: uint32(i.ModTime.Nanosecond()),
	}
	for _, x := range i.Xattrs {
		if !overlayAttr(x.Name) && erofs.XattrSupported(x.Name) {
			a.Xattrs = append(a.Xattrs, x)
		}
	}
	return a
}

// put gives a file of the layer its place; what is there goes.
func (v *view) put(p *place, ino erofs.Ino) error {
	if err := v.raise(p.dir); err != nil {
		return err
	}
	v.w.Remove(p.dir.ino, p.name)
	return v.w.Link(p.dir.ino, p.name, ino)
}

// mkdir makes a directory at a place that has none.
func (v *view) mkdir(p *place, attr erofs.Attr) (*dir, error) {
	if p.dir.lower {
		// One that was removed must not be seen through the new one.
		if info, err := v.lower.Lstat(p.path()); err == nil && info.isDir() {
			attr.Xattrs = append(attr.Xattrs, erofs.Xattr{Name: "trusted.overlay.opaque", Value: []byte("y")})
		}
	}
	ino, err := v.w.Node(attr)
	if err != nil {
		return nil, err
	}
	return &dir{p.path(), ino, false, p.dir}, v.put(p, ino)
}

// remove takes away what is at a place.
func (v *view) remove(p *place) error {
	if p.ino != 0 {
		v.w.Remove(p.dir.ino, p.name)
	}
	if !p.dir.lower {
		return nil
	}
	if _, err := v.lower.Lstat(p.path()); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	ino, err := v.w.Node(erofs.Attr{Mode: erofs.ModeChar}) // device 0:0
	if err != nil {
		return err
	}
	v.whiteouts[ino] = true
	return v.put(p, ino)
}
