package share

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// export is a directory or file that the guest may use.
type export struct {
	name string
	opt  Options
	fd   *desc // O_PATH
	stat unix.Stat_t
	uid  uint32 // of this process: in the guest that is root
	gid  uint32

	// store is where attributes may be kept: "user.", "trusted." or nothing.
	// links says whether symbolic links may have some too.
	store string
	links bool
	quota quota
}

// openExport opens and checks what options name.
func openExport(name string, o Options) (*export, error) {
	fd, err := unix.Open(o.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Path, err)
	}
	e := &export{
		name: name, opt: o, fd: &desc{fd, 1},
		uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid()),
	}
	if err := e.open(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *export) open() error {
	if err := unix.Fstat(e.fd.fd, &e.stat); err != nil {
		return err
	}
	kind := e.stat.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && kind != unix.S_IFREG {
		return fmt.Errorf("%w: %s is neither a directory nor a regular file", ErrInvalid, e.opt.Path)
	}
	if kind == unix.S_IFDIR {
		fd, err := openBeneath(e.fd.fd, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("openat2: %w", err)
		}
		unix.Close(fd)
	}
	e.probe()
	e.quota.limit = e.opt.Quota
	if e.opt.Quota == 0 {
		return nil
	}
	used, err := measure(e.fd.fd)
	e.quota.used = used
	return err
}

// probe finds out which attributes the file system has, by asking for one that
// is not there. Asking never says that writing is allowed; for "trusted." that
// takes a privilege, without which even names are hidden.
func (e *export) probe() {
	path := procPath(e.fd.fd)
	e.links = e.trusted(path)
	if _, err := unix.Getxattr(path, "user."+attrStat, nil); err == nil || errors.Is(err, unix.ENODATA) {
		e.store = "user."
	} else if e.links {
		e.store = "trusted."
	}
}

// trusted says whether this process may use trusted attributes, which it tells
// from a flag that lets nothing be written.
func (e *export) trusted(path string) bool {
	err := unix.Setxattr(path, "trusted."+attrSpace+"probe", []byte{0}, unix.XATTR_REPLACE)
	return err == nil || errors.Is(err, unix.ENODATA)
}

// close gives the descriptor back; open files of the guest go on.
func (e *export) close() {
	if e.fd.refs--; e.fd.refs == 0 {
		unix.Close(e.fd.fd)
	}
}

// attr is the host's name of attribute name for files of a kind, or "" where
// there is none.
func (e *export) attr(kind uint32, name string) string {
	switch {
	case kind == typeLink && e.links:
		return "trusted." + name
	case kind == typeReg || kind == typeDir:
		if e.store != "" {
			return e.store + name
		}
	}
	return ""
}
