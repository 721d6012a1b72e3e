package kernel

import "errors"

var (
	// ErrCorrupt means that the kernel inside this program is damaged: it does
	// not decompress, or not to what was built.
	ErrCorrupt = errors.New("embedded kernel is damaged")

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
	Op  string // "open", "close", "decompress", "parse ELF" or "flatten"
	Err error
}

func (e *OpError) Error() string { return "kernel: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }
