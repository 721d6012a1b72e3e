package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hutchvm/hutch/internal/artifact/build"
	"github.com/hutchvm/hutch/rootfs/base/internal/product"
)

// uuid of the file system: a constant, so that the image is one.
const uuid = "68757463-6862-4173-a500-000000000001"

// tree makes the image's files below dir, which must not exist.
func (b *builder) tree(dir string) error {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, e := range product.Layout {
		at := filepath.Join(dir, e.Path)
		var err error
		switch {
		case e.Path == "/":
		case e.Mode&fs.ModeSymlink != 0:
			err = os.Symlink(e.Link, at)
		default:
			// Mkdir alone does not set all bits.
			if err = os.Mkdir(at, 0o755); err == nil {
				err = os.Chmod(at, e.Mode&(fs.ModePerm|fs.ModeSticky))
			}
		}
		if err == nil {
			err = os.Lchown(at, e.UID, e.GID)
		}
		if err != nil {
			return err
		}
	}
	source := filepath.Join(b.root, product.Folder, "tree")
	files, err := build.Tree(source, ".", nil)
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if m, ok := product.Modes["/"+name]; ok {
			mode = m
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, mode); err != nil {
			return err
		}
	}
	for _, e := range []*executable{b.box, b.netBox} {
		if err := os.WriteFile(filepath.Join(dir, "bin", e.name), e.binary, 0o755); err != nil {
			return err
		}
		for _, name := range slices.Concat(e.programs(), slices.Sorted(maps.Keys(e.aliases()))) {
			if err := os.Symlink(e.name, filepath.Join(dir, "bin", name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// image makes an uncompressed EROFS image of the tree and has it checked.
func (b *builder) image(tree string) ([]byte, error) {
	out := filepath.Join(b.tmp, "base.erofs")
	for _, args := range [][]string{
		{"mkfs.erofs", "-x-1", "-T0", "-U" + uuid, out, tree},
		{"fsck.erofs", out},
	} {
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", args[0], err, text)
		}
	}
	return os.ReadFile(out)
}

// installErofs makes sure that erofs-utils is there.
func installErofs() error {
	_, err1 := exec.LookPath("mkfs.erofs")
	_, err2 := exec.LookPath("fsck.erofs")
	if err1 == nil && err2 == nil {
		return nil
	}
	cmd := exec.Command("apt-get", "install", "-y", "--no-install-recommends", "erofs-utils")
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.erofs is missing; apt-get install erofs-utils: %w: %s", err, out)
	}
	return nil
}

// erofsVersion is what mkfs.erofs -V prints: "mkfs.erofs 1.5" or
// "mkfs.erofs (erofs-utils) 1.8.6".
func erofsVersion() (string, error) {
	// Versions without the option print their version all the same, and fail.
	out, _ := exec.Command("mkfs.erofs", "-V").Output()
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "mkfs.erofs" {
			return f[len(f)-1], nil
		}
	}
	return "", errors.New("cannot tell the version of mkfs.erofs")
}
