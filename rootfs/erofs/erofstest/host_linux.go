package erofstest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// DescribeHost describes a directory of this machine, such as a mounted image, as
// Describe does an image.
func DescribeHost(root string) (map[string]string, error) {
	all := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s, err := hostLine(path, info)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		ino := info.Sys().(*syscall.Stat_t).Ino
		if f, ok := first[ino]; ok {
			s += " same as " + f
		}
		first[ino] = name
		all[name] = s
		return nil
	})
	return all, err
}

func hostLine(path string, info fs.FileInfo) (string, error) {
	st := info.Sys().(*syscall.Stat_t)
	s := fmt.Sprintf("%06o %d:%d %d.%d links=%d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink)
	x, err := hostXattrs(path)
	if err != nil {
		return "", err
	}
	s += x
	switch {
	case info.Mode().IsRegular() && info.Size() <= 32:
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		s += fmt.Sprintf(" %q", b)
	case info.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err != nil {
			return "", err
		}
		s += fmt.Sprintf(" %d bytes %.8x", n, h.Sum(nil))
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		s += " -> " + target
	case info.Mode()&fs.ModeDevice != 0:
		s += fmt.Sprintf(" %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return s, nil
}

func hostXattrs(path string) (s string, err error) {
	buf := make([]byte, 128<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", err
	}
	var list []string
	for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if len(name) > 0 {
			list = append(list, string(name))
		}
	}
	slices.Sort(list)
	for _, name := range list {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		s += fmt.Sprintf(" %s=%x", name, buf[:n])
	}
	return s, nil
}
