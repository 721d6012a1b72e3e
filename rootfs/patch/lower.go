package patch

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// Image returns the file system of an EROFS image of size bytes, which must not
// change while it is in use.
func Image(r io.ReaderAt, size int64) (Lower, error) {
	im, err := erofs.OpenImage(r, size)
	if err != nil {
		return nil, err
	}
	root, err := im.File(im.Root())
	if err != nil {
		return nil, err
	}
	return &image{dirs: map[string]*erofs.File{".": root}}, nil
}

// image is an EROFS image. It is for one goroutine.
type image struct {
	dirs map[string]*erofs.File // directories seen
}

// find returns the file of a path.
func (im *image) find(name string) (*erofs.File, error) {
	name = path.Clean(name)
	if f := im.dirs[name]; f != nil {
		return f, nil
	}
	dir, err := im.find(path.Dir(name))
	if err != nil {
		return nil, err
	}
	if !dir.IsDir() {
		return nil, fmt.Errorf("%.300q: %w", name, fs.ErrNotExist)
	}
	f, ok, err := dir.Lookup(path.Base(name))
	if err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("%.300q: %w", name, fs.ErrNotExist)
	}
	if f.IsDir() {
		im.dirs[name] = f
	}
	return f, nil
}

func (im *image) Lstat(name string) (Info, error) {
	f, err := im.find(name)
	if err != nil {
		return Info{}, err
	}
	x, err := f.Xattrs()
	return Info{
		Mode: f.Mode, UID: f.UID, GID: f.GID, Size: f.Size,
		ModTime: time.Unix(f.Seconds, int64(f.Nanos)), Xattrs: x,
	}, err
}

func (im *image) Readlink(name string) (string, error) {
	f, err := im.find(name)
	if err != nil {
		return "", err
	}
	return f.Target()
}

func (im *image) Open(name string) (io.ReadCloser, error) {
	f, err := im.find(name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(f.Content()), nil
}

// Directory returns the file system below a directory of the host, as a guest sees it
// that has it for its root: what belongs to the user of this process belongs to root
// there. Extended attributes are left out. The caller keeps root, and closes it when
// Build is done.
func Directory(root *os.Root) Lower {
	return directory{root, uint32(os.Geteuid()), uint32(os.Getegid())}
}

type directory struct {
	root     *os.Root
	uid, gid uint32 // of this process
}

func (d directory) Lstat(name string) (Info, error) {
	i, err := d.root.Lstat(name)
	if err != nil {
		return Info{}, err
	}
	info := Info{Mode: modeOf(i.Mode()), Size: i.Size(), ModTime: i.ModTime()}
	if info.UID, info.GID = ownerOf(i); info.UID == d.uid {
		info.UID = 0
	}
	if info.GID == d.gid {
		info.GID = 0
	}
	return info, nil
}

func (d directory) Readlink(name string) (string, error) { return d.root.Readlink(name) }

func (d directory) Open(name string) (io.ReadCloser, error) { return openRegular(d.root, name) }

// openRegular opens a file that must be a regular one, without waiting for the other
// end of a fifo that has taken its place.
func openRegular(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	if i, err := f.Stat(); err != nil {
		f.Close()
		return nil, err
	} else if !i.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%.300q: %w", name, ErrNotFile)
	}
	return f, nil
}

// modeOf turns a mode of Go's into Linux'.
func modeOf(m fs.FileMode) uint16 {
	mode := uint16(m.Perm())
	for _, b := range []struct {
		from fs.FileMode
		to   uint16
	}{{fs.ModeSetuid, erofs.ModeSetuid}, {fs.ModeSetgid, erofs.ModeSetgid}, {fs.ModeSticky, erofs.ModeSticky}} {
		if m&b.from != 0 {
			mode |= b.to
		}
	}
	switch m.Type() {
	case 0:
		return mode | erofs.ModeRegular
	case fs.ModeDir:
		return mode | erofs.ModeDir
	case fs.ModeSymlink:
		return mode | erofs.ModeSymlink
	case fs.ModeNamedPipe:
		return mode | erofs.ModeFifo
	case fs.ModeSocket:
		return mode | erofs.ModeSocket
	case fs.ModeDevice:
		return mode | erofs.ModeBlock
	}
	return mode | erofs.ModeChar
}

// join is path.Join for paths that are clean.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// overlayAttr tells whether an attribute is one by which overlayfs keeps its books.
func overlayAttr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}
