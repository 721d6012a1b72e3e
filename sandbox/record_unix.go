//go:build unix

package sandbox

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox's record is a directory, $HUTCH_HOME/sandboxes/NAME, that holds
//
//	lock          flocked by the process in which the sandbox runs
//	sandbox.json  what it is, for people and other processes
//
// A record whose lock nobody holds was left by a process that was killed.

const (
	recordsDir = "sandboxes"
	lockName   = "lock"
	infoName   = "sandbox.json"
)

// info is the content of sandbox.json.
type info struct {
	Name    string            `json:"name"`
	PID     int               `json:"pid"`
	Created time.Time         `json:"created"`
	CPUs    int               `json:"cpus"`
	Memory  uint64            `json:"memory_bytes"`
	Labels  map[string]string `json:"labels,omitempty"`
}

type record struct {
	dir  string
	lock *os.File
}

// claim makes the record of c's sandbox, taking over one that was left behind.
// Of several claims of one name exactly one wins; the others get ErrAlreadyExists.
func claim(c *config) (*record, error) {
	root := filepath.Join(c.Home, recordsDir)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, c.Name)
	for {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		lock, err := lockRecord(dir, os.O_CREATE)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner removed it in between
		}
		if err != nil {
			return nil, err
		}
		r := &record{dir: dir, lock: lock}
		err = r.write(info{Name: c.Name, PID: os.Getpid(), Created: time.Now().UTC(), CPUs: c.CPUs, Memory: c.Memory, Labels: c.Labels})
		if err != nil {
			return nil, errors.Join(err, r.remove())
		}
		return r, nil
	}
}

// lockRecord takes the lock of the record in dir. The error is ErrAlreadyExists
// when another holds it and fs.ErrNotExist when the record has gone.
func lockRecord(dir string, create int) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|create, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrAlreadyExists
		}
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	// The owner removes the record while it holds the lock, so the file locked
	// here may no longer be the one at path.
	var atPath os.FileInfo
	mine, err := f.Stat()
	if err == nil {
		atPath, err = os.Stat(path)
	}
	if err == nil && !os.SameFile(mine, atPath) {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// write replaces sandbox.json atomically.
func (r *record) write(i info) error {
	b, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(r.dir, infoName+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(r.dir, infoName))
}

// remove deletes the record and lets go of its lock.
func (r *record) remove() error {
	err := os.RemoveAll(r.dir)
	return errors.Join(err, r.lock.Close())
}

// sweep removes the records under home that killed processes left behind.
func sweep(home string) error {
	root := filepath.Join(home, recordsDir)
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		lock, err := lockRecord(dir, 0)
		if err != nil {
			continue // in use, or just being made or removed
		}
		errs = append(errs, (&record{dir: dir, lock: lock}).remove())
	}
	return errors.Join(errs...)
}

// writable tells whether this process may make files in dir.
func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &fs.PathError{Op: "write", Path: dir, Err: err}
	}
	return nil
}
