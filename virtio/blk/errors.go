package blk

import (
	"errors"
	"fmt"
)

// Causes of requests that the device refuses; they do not reach Config.OnError,
// since the guest makes them.
var (
	errMalformed   = errors.New("malformed request")
	errRange       = errors.New("outside the disk")
	errUnsupported = errors.New("unsupported request")
)

// OpError is a failed operation on a backend.
type OpError struct {
	Op      string // "read", "write", "flush", "discard", "write zeroes", "open"
	Off     int64  // byte offset on the disk
	Len     int64  // bytes
	Skipped uint64 // errors since the one reported before
	Err     error
}

// Error says what was done where.
func (e *OpError) Error() string {
	if e.Len == 0 {
		return fmt.Sprintf("blk: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("blk: %s %d bytes at %d: %v", e.Op, e.Len, e.Off, e.Err)
}

// Unwrap returns the cause, for example syscall.ENOSPC.
func (e *OpError) Unwrap() error { return e.Err }
