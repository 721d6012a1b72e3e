package kernel

import "errors"

var (
	// ErrCorrupt means that bytes are not what was written: a damaged binary, or
	// a cache entry that changed. [Open] repairs the cache by itself and returns
	// this only when the embedded kernel is the damaged one.
	ErrCorrupt = errors.New("corrupt kernel image")

	// ErrFormat means that a file is not a kernel that can be laid out in memory:
	// no ELF64 executable for x86-64, no loadable segment, or segments that
	// overlap, wrap around or point outside of the file.
	ErrFormat = errors.New("not a loadable x86-64 kernel")

	// ErrTooLarge means that a kernel or its span in memory exceeds the limits
	// of [ParseELF].
	ErrTooLarge = errors.New("kernel too large")
)

// OpError is the error of every function here that fails.
type OpError struct {
	Op   string // what was being done, such as "open" or "parse ELF"
	Path string // the file concerned, if any
	Err  error
}

func (e *OpError) Error() string {
	if e.Path == "" {
		return "kernel: " + e.Op + ": " + e.Err.Error()
	}
	return "kernel: " + e.Op + " " + e.Path + ": " + e.Err.Error()
}

func (e *OpError) Unwrap() error { return e.Err }

// opError wraps err once: an error that is an OpError already stays as it is.
func opError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var oe *OpError
	if errors.As(err, &oe) {
		return err
	}
	return &OpError{Op: op, Path: path, Err: err}
}
