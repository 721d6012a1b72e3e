package patch

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// copyFile copies a file of the host. mode 0 means that of the file.
func (b *builder) copyFile(at *place, p *Patch, mode fs.FileMode, open func() (*os.File, error)) error {
	f, err := open()
	if err != nil {
		return err
	}
	info, err := f.Stat()
	f.Close()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", info.Name(), ErrNotFile)
	}
	attr := b.attr(erofs.ModeRegular, &Patch{Mode: mode, UID: p.UID, GID: p.GID}, info.Mode()&modeBits)
	if mode == 0 {
		attr.Mode = modeOf(info.Mode()) // which may be 0 as well
	}
	attr.Seconds, attr.Nanos = info.ModTime().Unix(), uint32(info.ModTime().Nanosecond())
	return b.file(at, attr, info.Size(), func() (io.ReadCloser, error) { return open() })
}

// copyDir copies a directory of the host, with all below it. The names in it that are
// symbolic links are copied as such and never followed.
func (b *builder) copyDir(at *place, p *Patch) error {
	if !at.absent() && !p.Replace {
		return fs.ErrExist
	}
	root, err := os.OpenRoot(p.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	top, err := b.dirFor(at, p, p.Mode, info)
	if err != nil {
		return err
	}
	return b.copyInto(top, p, root, ".")
}

// dirFor returns the directory at a place, which is made when there is none.
func (b *builder) dirFor(at *place, p *Patch, mode fs.FileMode, info fs.FileInfo) (*dir, error) {
	if at.isDir() {
		if at.name == "" {
			return at.dir, nil
		}
		return at.asDir(), nil
	}
	if err := free(at, p.Replace); err != nil {
		return nil, fmt.Errorf("%.300q: %w", at.path(), err)
	}
	attr := b.attr(erofs.ModeDir, &Patch{Mode: mode, UID: p.UID, GID: p.GID}, info.Mode()&modeBits)
	attr.Seconds, attr.Nanos = info.ModTime().Unix(), uint32(info.ModTime().Nanosecond())
	return b.mkdir(at, attr)
}

// copyInto copies what a directory of the host has.
func (b *builder) copyInto(to *dir, p *Patch, root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err := b.copyEntry(to, p, root, path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) copyEntry(to *dir, p *Patch, root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	at, err := b.at(to, path.Base(name))
	if err != nil {
		return err
	}
	if info.IsDir() {
		if at.kind() == erofs.ModeSymlink && p.Replace {
			// A link to a directory stands for it, as in the parents of a path.
			if real, err := b.resolve(b.root, "/"+at.path(), true, false); err != nil && !errors.Is(err, ErrNotDir) {
				return err
			} else if err == nil && real != nil && real.isDir() {
				at = real
			}
		}
		sub, err := b.dirFor(at, p, 0, info)
		if err != nil {
			return err
		}
		return b.copyInto(sub, p, root, name)
	}
	if err := free(at, p.Replace); err != nil {
		return fmt.Errorf("%.300q: %w", at.path(), err)
	}
	switch info.Mode().Type() {
	case 0:
		source := p.Source
		return b.copyFile(at, p, 0, func() (*os.File, error) {
			root, err := os.OpenRoot(source) // the one at hand is closed by the time of an append
			if err != nil {
				return nil, err
			}
			defer root.Close()
			return openRegular(root, name)
		})
	case fs.ModeSymlink:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		attr := b.attr(erofs.ModeSymlink, p, 0)
		attr.Mode = erofs.ModeSymlink | 0o777
		ino, err := b.w.Symlink(attr, target)
		if err != nil {
			return err
		}
		return b.put(at, ino)
	}
	return fmt.Errorf("%s: %w", name, ErrSource)
}
