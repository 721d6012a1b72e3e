package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// create writes an archive of the files named.
func (o *options) create(w io.Writer) error {
	t := tar.NewWriter(w)
	links := map[[2]uint64]string{} // device and inode of files with several names
	for _, file := range o.files {
		start := file
		if !filepath.IsAbs(start) {
			start = filepath.Join(o.dir, start)
		}
		err := filepath.WalkDir(start, func(at string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(start, at)
			if err != nil {
				return err
			}
			name := filepath.ToSlash(file)
			if rel != "." {
				name = strings.TrimSuffix(name, "/") + "/" + filepath.ToSlash(rel)
			}
			name = strings.TrimLeft(name, "/")
			if !o.wanted(name) {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			return o.add(t, at, name, links)
		})
		if err != nil {
			return err
		}
	}
	return t.Close()
}

func (o *options) add(t *tar.Writer, at, name string, links map[[2]uint64]string) error {
	info, err := os.Lstat(at)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 || name == "" {
		return nil
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(at); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name = name
	if info.IsDir() && !strings.HasSuffix(name, "/") {
		h.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		id := [2]uint64{uint64(st.Dev), st.Ino}
		if first, ok := links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			links[id] = name
		}
	}
	if o.verbose {
		fmt.Fprintln(os.Stderr, h.Name)
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(t, f, h.Size)
	return err
}
