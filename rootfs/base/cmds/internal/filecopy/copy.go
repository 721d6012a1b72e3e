package filecopy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Copier copies files and trees. It is not for concurrent use.
type Copier struct {
	Recursive bool
	Preserve  bool // mode, owner where allowed, times and hard links
	Links     bool // links are copied as links, even those named
	Follow    bool // links are never copied as links
	Force     bool // replace a target that cannot be opened
	NoClobber bool // leave targets that are there
	Update    bool // leave targets that are not older
	Hard, Sym bool // make links instead of copies
	Done      func(from, to string)
	Fail      func(err error)

	seen map[inode]string
	made map[inode]bool // folders made by this copy: not to be copied themselves
}

type inode struct{ dev, ino uint64 }

// Copy copies one file or tree, and tells whether all went well.
func (c *Copier) Copy(from, to string) bool {
	return c.copy(from, to, c.Links || c.Recursive && !c.Follow, true)
}

func (c *Copier) fail(err error) bool {
	c.Fail(err)
	return false
}

func (c *Copier) copy(from, to string, links, named bool) bool {
	flags := 0
	if links {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	var st unix.Stat_t
	if err := unix.Fstatat(unix.AT_FDCWD, from, &st, flags); err != nil {
		return c.fail(&fs.PathError{Op: "stat", Path: from, Err: err})
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && !c.Recursive {
		return c.fail(fmt.Errorf("%s is a folder, left out without -r", from))
	}
	var old unix.Stat_t
	exists := unix.Stat(to, &old) == nil
	if !exists || st.Mode&unix.S_IFMT == unix.S_IFLNK || c.Hard || c.Sym {
		exists = unix.Lstat(to, &old) == nil
	}
	if exists && !isDir {
		switch {
		case c.NoClobber, c.Update && !older(old.Mtim, st.Mtim):
			return true
		case old.Dev == st.Dev && old.Ino == st.Ino:
			return c.Hard || c.fail(fmt.Errorf("%s and %s are the same file", from, to))
		case old.Mode&unix.S_IFMT == unix.S_IFDIR:
			return c.fail(fmt.Errorf("%s is a folder, not to be replaced by a file", to))
		}
	}
	if isDir && exists && old.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c.fail(fmt.Errorf("%s is not a folder, not to be replaced by one", to))
	}
	if isDir {
		if named && inside(from, to) {
			return c.fail(fmt.Errorf("cannot copy %s into itself, %s", from, to))
		}
		return c.folder(from, to, &st, exists)
	}
	if err := c.file(from, to, &st, exists); err != nil {
		return c.fail(err)
	}
	if c.Done != nil {
		c.Done(from, to)
	}
	return true
}

func older(a, b unix.Timespec) bool { return a.Nano() < b.Nano() }

// inside tells whether to is below from.
func inside(from, to string) bool {
	f, err1 := filepath.EvalSymlinks(from)
	t, err2 := filepath.EvalSymlinks(filepath.Dir(to))
	f, err3 := filepath.Abs(f)
	t, err4 := filepath.Abs(filepath.Join(t, filepath.Base(to)))
	return errors.Join(err1, err2, err3, err4) == nil && f != t && strings.HasPrefix(t, strings.TrimSuffix(f, "/")+"/")
}

func (c *Copier) folder(from, to string, st *unix.Stat_t, exists bool) bool {
	if c.made[inode{st.Dev, st.Ino}] {
		return true
	}
	if !exists {
		// Its owner must be able to fill it.
		if err := os.Mkdir(to, fs.FileMode(st.Mode&0o777|0o700)); err != nil {
			return c.fail(err)
		}
		var made unix.Stat_t
		if unix.Stat(to, &made) == nil {
			if c.made == nil {
				c.made = map[inode]bool{}
			}
			c.made[inode{made.Dev, made.Ino}] = true
		}
		if c.Done != nil {
			c.Done(from, to)
		}
	}
	entries, err := os.ReadDir(from)
	good := err == nil || c.fail(err)
	for _, e := range entries {
		good = c.copy(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), !c.Follow, false) && good
	}
	switch {
	case c.Preserve:
		err = c.attributes(to, st)
	case !exists && st.Mode&0o700 != 0o700:
		var made unix.Stat_t
		if err = unix.Stat(to, &made); err == nil {
			err = unix.Chmod(to, made.Mode&0o7777&^(0o700&^st.Mode))
		}
	default:
		err = nil
	}
	if err != nil {
		return c.fail(err)
	}
	return good
}

// file copies what is not a folder.
func (c *Copier) file(from, to string, st *unix.Stat_t, exists bool) error {
	key := inode{st.Dev, st.Ino}
	if c.Preserve && st.Nlink > 1 {
		if first, ok := c.seen[key]; ok {
			return link(os.Link, first, to, exists)
		}
		if c.seen == nil {
			c.seen = map[inode]string{}
		}
		c.seen[key] = to
	}
	kind := st.Mode & unix.S_IFMT
	var err error
	switch {
	case c.Hard:
		return link(os.Link, from, to, exists && c.Force)
	case c.Sym:
		return link(os.Symlink, from, to, exists && c.Force)
	case kind == unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = link(os.Symlink, target, to, exists)
		}
	case kind == unix.S_IFREG || !c.Recursive:
		err = c.content(from, to, st, exists)
	case kind == unix.S_IFSOCK:
		return fmt.Errorf("%s: sockets cannot be copied", from)
	default:
		if exists {
			if err := os.Remove(to); err != nil {
				return err
			}
		}
		if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
			return &fs.PathError{Op: "mknod", Path: to, Err: err}
		}
	}
	if err != nil || !c.Preserve {
		return err
	}
	return c.attributes(to, st)
}

func link(make func(target, name string) error, target, name string, replace bool) error {
	if replace {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return make(target, name)
}

func (c *Copier) content(from, to string, st *unix.Stat_t, exists bool) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	perm := fs.FileMode(st.Mode & 0o777)
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil && exists && c.Force {
		if err := os.Remove(to); err != nil {
			return err
		}
		out, err = os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err2 := out.Close(); err == nil {
		err = err2
	}
	return err
}

// attributes gives a copy the owner, mode and times of its source. Who may not
// give files away keeps them.
func (c *Copier) attributes(to string, st *unix.Stat_t) error {
	mode := st.Mode & 0o7777
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		if !errors.Is(err, unix.EPERM) {
			return &fs.PathError{Op: "chown", Path: to, Err: err}
		}
		mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, mode); err != nil {
			return &fs.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: to, Err: err}
	}
	return nil
}
