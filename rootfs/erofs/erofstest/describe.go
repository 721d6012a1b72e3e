// Package erofstest puts the content of an EROFS image into words, for tests.
package erofstest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// Describe returns a line for each path of an image, without a slash in front; the
// root is ".". The content of short files is shown, that of others is hashed.
func Describe(im *erofs.Image) (map[string]string, error) {
	d := describer{im, map[string]string{}, map[uint64]string{}}
	root, err := im.File(im.Root())
	if err != nil {
		return nil, err
	}
	return d.all, d.walk(".", root)
}

type describer struct {
	im    *erofs.Image
	all   map[string]string
	first map[uint64]string // number → first path
}

func (d *describer) walk(path string, f *erofs.File) error {
	s, err := Line(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if first, ok := d.first[f.Number()]; ok {
		s += " same as " + first
	}
	d.first[f.Number()] = path
	d.all[path] = s
	if !f.IsDir() {
		return nil
	}
	var kids []erofs.Entry
	if err := f.Entries(func(e erofs.Entry) bool { kids = append(kids, e); return true }); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range kids {
		child, err := d.im.File(e.Number)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", path, e.Name, err)
		}
		if err := d.walk(strings.TrimPrefix(path+"/"+e.Name, "./"), child); err != nil {
			return err
		}
	}
	return nil
}

// Line describes one file: mode, owner, time, links, what it holds.
func Line(f *erofs.File) (string, error) {
	x, err := f.Xattrs()
	if err != nil {
		return "", err
	}
	s := fmt.Sprintf("%06o %d:%d %d.%d links=%d", f.Mode, f.UID, f.GID, f.Seconds, f.Nanos, f.Links)
	for _, a := range x {
		s += fmt.Sprintf(" %s=%x", a.Name, a.Value)
	}
	switch f.Mode & erofs.ModeType {
	case erofs.ModeRegular:
		if f.Size <= 32 {
			b, err := io.ReadAll(f.Content())
			if err != nil {
				return "", err
			}
			return s + fmt.Sprintf(" %q", b), nil
		}
		h := sha256.New()
		if _, err := io.Copy(h, f.Content()); err != nil {
			return "", err
		}
		s += fmt.Sprintf(" %d bytes %.8x", f.Size, h.Sum(nil))
	case erofs.ModeSymlink:
		target, err := f.Target()
		if err != nil {
			return "", err
		}
		s += " -> " + target
	case erofs.ModeChar, erofs.ModeBlock:
		major, minor := erofs.Numbers(f.Device)
		s += fmt.Sprintf(" %d,%d", major, minor)
	}
	return s, nil
}
