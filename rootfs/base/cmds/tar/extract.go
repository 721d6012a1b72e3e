package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// read lists or unpacks an archive.
func (o *options) read(r io.Reader) error {
	var root *os.Root
	if o.mode == 'x' {
		var err error
		if root, err = os.OpenRoot(o.dir); err != nil {
			return err
		}
		defer root.Close()
	}
	t := tar.NewReader(r)
	var folders []*tar.Header // their times and modes are set last
	var failed error
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !o.wanted(h.Name) {
			continue
		}
		if o.mode == 't' || o.verbose {
			o.show(h)
		}
		if o.mode == 't' {
			continue
		}
		name, ok := o.stripped(h.Name)
		if !ok {
			continue
		}
		if err := o.extract(root, name, h, t); err != nil {
			fmt.Fprintf(os.Stderr, "tar: %s: %v\n", h.Name, err)
			failed = errors.New("some files could not be unpacked")
			continue
		}
		if h.Typeflag == tar.TypeDir {
			h.Name = name
			folders = append(folders, h)
		}
	}
	for i := len(folders) - 1; i >= 0; i-- {
		o.attributes(root, folders[i].Name, folders[i])
	}
	return failed
}

func (o *options) show(h *tar.Header) {
	if !o.verbose || o.mode == 'x' {
		fmt.Println(h.Name)
		return
	}
	link := ""
	if h.Linkname != "" {
		link = " -> " + h.Linkname
	}
	fmt.Printf("%s %d/%d %9d %s %s%s\n", h.FileInfo().Mode(), h.Uid, h.Gid, h.Size, h.ModTime.Format("2006-01-02 15:04"), h.Name, link)
}

// stripped is the name below the target folder.
func (o *options) stripped(name string) (string, bool) {
	parts := strings.Split(clean(name), "/")
	if len(parts) <= o.strip {
		return "", false
	}
	name = strings.Join(parts[o.strip:], "/")
	return name, name != ""
}

func (o *options) extract(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	if err := root.MkdirAll(filepath.FromSlash(path.Dir(name)), 0o755); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		err := root.Mkdir(name, 0o755)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
	case tar.TypeLink:
		target, ok := o.stripped(h.Linkname)
		if !ok {
			return fmt.Errorf("link to %q, which was stripped", h.Linkname)
		}
		return root.Link(target, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := node(root, name, h); err != nil {
			return err
		}
	default:
		return fmt.Errorf("entry of unknown type %q", h.Typeflag)
	}
	return o.attributes(root, name, h)
}

// node makes a device or a fifo, by its folder's descriptor.
func node(root *os.Root, name string, h *tar.Header) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
	return unix.Mknodat(int(dir.Fd()), path.Base(name), kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

func (o *options) attributes(root *os.Root, name string, h *tar.Header) error {
	if os.Geteuid() == 0 && !o.noOwner {
		if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	info := h.FileInfo().Mode()
	if err := root.Chmod(name, info&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return root.Chtimes(name, time.Now(), h.ModTime)
}
