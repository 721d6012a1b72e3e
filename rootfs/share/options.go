package share

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits and defaults.
const (
	MaxName         = 255     // bytes of a name in a directory, an export's too
	MaxRequestBytes = 1 << 20 // of data in one request

	DefaultMaxNodes   = 1 << 20
	DefaultMaxHandles = 8192
	DefaultMaxDirs    = 512
)

// Errors of this package. They come wrapped in an *OpError.
var (
	// ErrInvalid says that an option cannot be used.
	ErrInvalid = errors.New("invalid option")
	// ErrExists says that the server has an export of that name.
	ErrExists = errors.New("export exists")
	// ErrClosed says that the server was closed.
	ErrClosed = errors.New("server is closed")
	// ErrUnsupported says that the host is not Linux, or too old for openat2
	// (Linux 5.6).
	ErrUnsupported = errors.New("sharing files is not supported on this platform")
)

// OpError is the error type of this package.
type OpError struct {
	Op   string // "export", "serve"
	Name string // of the export
	Err  error
}

// Error names the export and what was being done.
func (e *OpError) Error() string { return fmt.Sprintf("share: %s %s: %v", e.Op, e.Name, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Cache says how long the guest may believe what it has seen.
type Cache int

const (
	// CacheAuto: names and attributes for a second; data until the file's size
	// or time of change differs.
	CacheAuto Cache = iota
	// CacheNone: everything is asked again; data is not cached.
	CacheNone
	// CacheAlways: for an hour. For what nobody else changes.
	CacheAlways
)

func (c Cache) timeout() time.Duration {
	switch c {
	case CacheNone:
		return 0
	case CacheAlways:
		return time.Hour
	}
	return time.Second
}

// Config is what a server is made of. The zero value works.
type Config struct {
	// MaxNodes bounds the files and directories that the guest has in mind at
	// once, about 300 bytes each (default 1,048,576); beyond it lookups fail
	// with ENFILE.
	MaxNodes int
	// MaxHandles bounds the guest's open files and directories (default 8192);
	// each is a descriptor. Beyond it opens fail with ENFILE.
	MaxHandles int
	// MaxDirs bounds the descriptors of directories that are kept to look up
	// names faster (default 512).
	MaxDirs int
	// WritebackCache lets the guest's kernel collect small writes. It is faster,
	// but the host sees data late, and changes on the host are overlooked.
	WritebackCache bool
	// OnPanic is told of a panic while a request was served, which is a bug here.
	// The request fails with EIO.
	OnPanic func(any)
}

func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{
		{"MaxNodes", &c.MaxNodes, DefaultMaxNodes},
		{"MaxHandles", &c.MaxHandles, DefaultMaxHandles},
		{"MaxDirs", &c.MaxDirs, DefaultMaxDirs},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < 0 {
			return c, &OpError{Op: "serve", Name: f.name, Err: fmt.Errorf("%w: %d is negative", ErrInvalid, *f.v)}
		}
	}
	return c, nil
}

// Options describe an export.
type Options struct {
	// Path is the directory or regular file on the host. Symbolic links in it
	// are followed when the export is added, never afterwards.
	Path string
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// Mirror applies owner and mode to the host's file, instead of keeping them
	// in an attribute. Set-user-ID and set-group-ID bits of files stay out, and
	// device nodes, pipes and sockets are refused with EPERM. To change owners
	// the process must be allowed to.
	Mirror bool
	// Quota bounds what the export may hold, in bytes of disk space plus
	// [InodeCost] for each file, what is there already included; beyond it
	// requests fail with ENOSPC. 0 is no bound. What the host adds later is not
	// counted. Adding an export with a quota reads the whole tree once.
	Quota int64
	// Cache says how long the guest may believe what it has seen.
	Cache Cache
}

// InodeCost is what a file counts for in a quota beside its data.
const InodeCost = 512

func (o *Options) validate(name string) error {
	bad := func(format string, args ...any) error {
		return &OpError{Op: "export", Name: name, Err: fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
	}
	switch {
	case !validName(name):
		return bad("name %q is not one path component of 1 to %d bytes", name, MaxName)
	case o.Path == "" || strings.IndexByte(o.Path, 0) >= 0:
		return bad("Path %q is empty or holds a NUL byte", o.Path)
	case o.Quota < 0:
		return bad("Quota %d is negative", o.Quota)
	case o.Cache < CacheAuto || o.Cache > CacheAlways:
		return bad("Cache %d is unknown", o.Cache)
	}
	return nil
}

// validName reports whether a name may be looked up in a directory.
func validName(name string) bool {
	return name != "" && len(name) <= MaxName && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
