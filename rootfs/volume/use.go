package volume

import (
	"errors"
	"io/fs"
	"os"
)

// Use is a volume that cannot be removed until it is closed, or the process ends.
type Use struct {
	Info
	lock *os.File
}

// Use opens a volume for use. The caller closes it.
func (s *Store) Use(name string) (_ *Use, err error) {
	defer wrap("use", name, &err)
	if err := CheckName(name); err != nil {
		return nil, err
	}
	lock, err := s.lock(name, false)
	if err != nil {
		return nil, err
	}
	info, err := s.get(name)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Use{*info, lock}, nil
}

// Close ends the use. It is idempotent.
func (u *Use) Close() error {
	if err := u.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Root opens the volume's files for the host. Names cannot lead out of it, by
// links neither. The caller closes it.
func (u *Use) Root() (_ *os.Root, err error) {
	defer wrap("open", u.Name, &err)
	return os.OpenRoot(u.Path)
}

// Usage is what a volume holds.
type Usage struct {
	Bytes int64 // on disk
	Files int64 // of any kind, directories included
}

// Usage walks the volume and adds up. What changes meanwhile may count or not.
func (u *Use) Usage() (_ Usage, err error) {
	defer wrap("measure", u.Name, &err)
	root, err := os.OpenRoot(u.Path)
	if err != nil {
		return Usage{}, err
	}
	defer root.Close()
	var total Usage
	seen := map[fileID]bool{}
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != "." {
			var st fs.FileInfo
			if st, err = d.Info(); err == nil {
				if id, bytes, once := blocks(st); once || !seen[id] {
					seen[id] = !once
					total.Bytes += bytes
					total.Files++
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return total, err
}
