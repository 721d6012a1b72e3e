package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	recordName = "volume.json"
	lockName   = "lock"
	dataName   = "data"
	newPrefix  = ".new-"
	gonePrefix = ".gone-"

	version   = 1
	maxName   = 128
	maxRecord = 1 << 20
)

// Errors of this package. They come wrapped in an *OpError.
var (
	ErrNotFound = errors.New("no such volume")
	ErrExists   = errors.New("volume already exists")
	ErrInUse    = errors.New("volume is in use")
	ErrInvalid  = errors.New("invalid volume")
)

// OpError is the error type of this package.
type OpError struct {
	Op     string // "create", "get", "remove", ...
	Volume string // its name
	Err    error
}

func (e *OpError) Error() string { return "volume: " + e.Op + " " + e.Volume + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Info is what is known of a volume.
type Info struct {
	Name    string            `json:"-"` // the directory's
	Created time.Time         `json:"created"`
	Quota   int64             `json:"quota_bytes,omitempty"` // 0 is no limit
	Labels  map[string]string `json:"labels,omitempty"`
	Path    string            `json:"-"` // of its files on the host
}

// Options are what a new volume is given.
type Options struct {
	Quota  int64 // bytes that it may hold; 0 is no limit
	Labels map[string]string
}

// Store is a directory of volumes, which need not exist yet.
type Store struct{ dir string }

// NewStore returns the store in dir.
func NewStore(dir string) *Store { return &Store{dir} }

// CheckName tells whether a volume can have that name: it becomes a directory.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: name has %d bytes, want 1 to %d", ErrInvalid, len(name), maxName)
	}
	for i, c := range []byte(name) {
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return fmt.Errorf("%w: name %q: want letters, digits, '.', '_' and '-', the first a letter or digit", ErrInvalid, name)
		}
	}
	return nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// Create makes a volume. Of several creates of one name exactly one succeeds;
// the others get ErrExists.
func (s *Store) Create(name string, o Options) (_ *Info, err error) {
	defer wrap("create", name, &err)
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if o.Quota < 0 {
		return nil, fmt.Errorf("%w: quota of %d bytes", ErrInvalid, o.Quota)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(s.path(name)); err == nil {
		return nil, ErrExists
	}
	s.sweep()
	tmp, err := os.MkdirTemp(s.dir, newPrefix)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	info := &Info{Name: name, Created: time.Now().UTC(), Quota: o.Quota, Labels: maps.Clone(o.Labels)}
	if err := os.Mkdir(filepath.Join(tmp, dataName), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, lockName), nil, 0o600); err != nil {
		return nil, err
	}
	if err := writeRecord(tmp, info); err != nil {
		return nil, err
	}
	// A directory with files is never replaced by a rename.
	if err := os.Rename(tmp, s.path(name)); err != nil {
		if errors.Is(err, fs.ErrExist) || isNotEmpty(err) {
			return nil, ErrExists
		}
		return nil, err
	}
	info.Path = filepath.Join(s.path(name), dataName)
	return info, nil
}

func writeRecord(dir string, info *Info) error {
	b, err := json.MarshalIndent(struct {
		Version int `json:"version"`
		*Info
	}{version, info}, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, recordName+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(append(b, '\n')); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, recordName))
}

// Get returns a volume.
func (s *Store) Get(name string) (_ *Info, err error) {
	defer wrap("get", name, &err)
	return s.get(name)
}

func (s *Store) get(name string) (*Info, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(s.path(name), recordName)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxRecord {
		return nil, fmt.Errorf("%w: %s is no record", ErrInvalid, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r struct {
		Version int `json:"version"`
		Info
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	if r.Version != version || r.Quota < 0 {
		return nil, fmt.Errorf("%w: %s: version %d, this program knows %d", ErrInvalid, path, r.Version, version)
	}
	r.Name, r.Path = name, filepath.Join(s.path(name), dataName)
	return &r.Info, nil
}

// List returns all volumes by name. One whose record cannot be read is left out
// and told of in the error.
func (s *Store) List() ([]*Info, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &OpError{Op: "list", Volume: s.dir, Err: err}
	}
	var list []*Info
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		switch info, err := s.get(e.Name()); {
		case err == nil:
			list = append(list, info)
		case !errors.Is(err, ErrNotFound): // which is gone meanwhile
			errs = append(errs, &OpError{Op: "list", Volume: e.Name(), Err: err})
		}
	}
	slices.SortFunc(list, func(a, b *Info) int { return strings.Compare(a.Name, b.Name) })
	return list, errors.Join(errs...)
}

// Remove deletes a volume with all its files. The error is ErrInUse while
// somebody uses it.
func (s *Store) Remove(name string) (err error) {
	defer wrap("remove", name, &err)
	if err := CheckName(name); err != nil {
		return err
	}
	lock, err := s.lock(name, true)
	if err != nil {
		return err
	}
	defer lock.Close()
	gone, err := os.MkdirTemp(s.dir, gonePrefix)
	if err != nil {
		return err
	}
	if err := os.Rename(s.path(name), filepath.Join(gone, name)); err != nil {
		return errors.Join(err, os.Remove(gone))
	}
	return os.RemoveAll(gone)
}

// lock takes the lock of a volume that exists, and still does when it has it.
func (s *Store) lock(name string, alone bool) (*os.File, error) {
	path := filepath.Join(s.path(name), lockName)
	f, err := lockFile(path, alone)
	if errors.Is(err, fs.ErrNotExist) || !alone && errors.Is(err, ErrInUse) { // by who removes it
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	mine, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(path); err == nil && !os.SameFile(mine, there) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotFound
		}
		return nil, err
	}
	return f, nil
}

// sweep deletes what killed processes left half made or half removed.
func (s *Store) sweep() {
	const abandoned = time.Hour
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > abandoned &&
			(strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), gonePrefix)) {
			os.RemoveAll(filepath.Join(s.dir, e.Name()))
		}
	}
}

func wrap(op, name string, err *error) {
	if *err != nil {
		*err = &OpError{Op: op, Volume: name, Err: *err}
	}
}
