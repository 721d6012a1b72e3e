//go:build unix

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox's record is a directory, $HUTCH_HOME/sandboxes/NAME, that holds
//
//	lock          flocked by the process in which the sandbox runs, or that changes the record
//	sandbox.json  what it is and how it is, see info
//	upper.img     the writable disk, of one that is not ephemeral
//	control       the socket on which that process can be asked to end it
//
// A record comes into being, lock held, under a name that begins with newPrefix
// and is renamed; it goes by being renamed to one that begins with gonePrefix.
// So under its own name it is always whole. Whether a process still stands
// behind it is told by the lock alone: that of a killed process is free.

const (
	recordsDir = "sandboxes"
	lockName   = "lock"
	infoName   = "sandbox.json"
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

const (
	// lockTries at intervals of lockPause: who only looks whether a lock is
	// held takes it for some microseconds.
	lockTries = 5
	lockPause = time.Millisecond
	// abandoned is the age from which a record without a lock file is taken
	// for one whose maker was killed.
	abandoned = time.Minute
)

type record struct {
	dir  string
	lock *os.File
}

func recordsOf(home string) string { return filepath.Join(home, recordsDir) }

// claim makes a record with the content i, and takes the place of one that was
// left behind. Of several claims of one name exactly one wins; the others get
// ErrAlreadyExists.
func claim(home string, i *info) (*record, error) {
	root := recordsOf(home)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(root, i.Name)
	for {
		if err := vacate(path); err != nil {
			return nil, err
		}
		r, err := newRecord(root, i)
		if err == nil {
			if err = rename(r.dir, path); err == nil {
				r.dir = path
				return r, nil
			}
			r.discard()
		}
		// The name was taken meanwhile, or what was being made was swept.
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrStillRunning) {
			return nil, err
		}
	}
}

// newRecord makes a record under a name of its own.
func newRecord(root string, i *info) (*record, error) {
	dir, err := os.MkdirTemp(root, newPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := lockRecord(dir, os.O_CREATE)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	r := &record{dir: dir, lock: lock}
	if err := r.write(i); err != nil {
		r.discard()
		return nil, err
	}
	return r, nil
}

// discard deletes a record that nobody has seen.
func (r *record) discard() {
	os.RemoveAll(r.dir)
	r.lock.Close()
}

// vacate removes what a killed process left at path. The error is
// ErrAlreadyExists when a sandbox is there.
func vacate(path string) error {
	i, err := readInfo(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err != nil {
			return nil
		}
	case err != nil:
		return fmt.Errorf("%w, with a record that cannot be read: %w", ErrAlreadyExists, err)
	case !i.remnant():
		return ErrAlreadyExists
	}
	switch r, err := openRecord(path); {
	case err == nil:
		return r.remove()
	case errors.Is(err, fs.ErrNotExist):
		// It has gone meanwhile, or it is no record.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is no record of a sandbox", ErrAlreadyExists, path)
		}
		return nil
	case errors.Is(err, ErrStillRunning):
		return ErrAlreadyExists
	default:
		return err
	}
}

// rename puts a directory in the place of nothing or of an empty directory.
func rename(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// openRecord takes the lock of an existing record. The error is ErrStillRunning
// when another holds it and fs.ErrNotExist when there is none.
func openRecord(dir string) (*record, error) {
	lock, err := lockRecord(dir, 0)
	if err != nil {
		return nil, err
	}
	return &record{dir: dir, lock: lock}, nil
}

func lockRecord(dir string, create int) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|create, 0o600)
	if err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		err = flock(f, unix.LOCK_EX)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || n == lockTries {
			break
		}
		time.Sleep(lockPause)
	}
	// The owner removes the record while it holds the lock, so the file locked
	// here may no longer be the one at path.
	var mine, atPath os.FileInfo
	if err == nil {
		mine, err = f.Stat()
	}
	if err == nil {
		atPath, err = os.Stat(path)
	}
	if err == nil && !os.SameFile(mine, atPath) {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrStillRunning
		}
		return nil, err
	}
	return f, nil
}

// held tells whether some process holds the record's lock.
func held(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close() // which unlocks
	return errors.Is(flock(f, unix.LOCK_SH), unix.EWOULDBLOCK)
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

// maxInfo bounds a sandbox.json; environments and scripts can be large.
const maxInfo = 64 << 20

// readInfo reads the record in dir. No lock is needed: it is replaced as a whole.
func readInfo(dir string) (*info, error) {
	path := filepath.Join(dir, infoName)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxInfo {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("too large")}
	}
	i := &info{}
	if err := json.NewDecoder(f).Decode(i); err != nil {
		return nil, &fs.PathError{Op: "parse", Path: path, Err: err}
	}
	if i.Version != infoVersion || i.Config == nil {
		return nil, &fs.PathError{Op: "parse", Path: path, Err: fmt.Errorf("version %d, this program knows %d", i.Version, infoVersion)}
	}
	i.Name = filepath.Base(dir)
	return i, nil
}

// write replaces sandbox.json as a whole. That of a sandbox that is to last is
// on the disk when it returns.
func (r *record) write(i *info) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(r.dir, infoName+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil && !i.Config.Ephemeral {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(r.dir, infoName))
}

// close lets go of a record that stays.
func (r *record) close() error { return r.lock.Close() }

// remove deletes the record and lets go of its lock.
func (r *record) remove() error {
	gone, err := os.MkdirTemp(filepath.Dir(r.dir), gonePrefix)
	if err == nil {
		err = rename(r.dir, gone)
	}
	if err == nil {
		r.dir = gone
	}
	return errors.Join(err, os.RemoveAll(r.dir), r.lock.Close())
}

// sweep removes the records under home that killed processes left behind:
// those that are ephemeral or were never finished.
func sweep(home string) error {
	root := recordsOf(home)
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, sweepOne(filepath.Join(root, e.Name()), e))
	}
	return errors.Join(errs...)
}

func sweepOne(dir string, e fs.DirEntry) error {
	unfinished := strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), gonePrefix)
	if !unfinished {
		if i, err := readInfo(dir); err != nil || !i.remnant() {
			return nil // it lasts, or is for people to look at
		}
	}
	r, err := openRecord(dir)
	switch {
	case err == nil && unfinished:
		return errors.Join(os.RemoveAll(dir), r.close())
	case err == nil:
		return r.remove()
	case unfinished && errors.Is(err, fs.ErrNotExist):
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > abandoned {
			return os.RemoveAll(dir)
		}
	}
	return nil // in use, or just being made or removed
}

// writable tells whether this process may make files in dir.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "write", Path: dir, Err: err}
	}
	return nil
}
