// Package initramfs makes the archive that the guest's kernel unpacks as its
// first root file system. It holds the guest agent as /init, the device nodes
// that the agent needs before it has mounted anything, and empty folders to
// mount on.
//
// The built agent is embedded, compressed (agent.zst). SHA256SUMS says what it
// was built from, NOTICE carries the licences of what is in it. A test tells
// when the agent is older than its sources; "make agent" builds it anew.
package initramfs

import "errors"

var (
	// ErrCorrupt means that an archive is damaged, cut short or of a format
	// that the kernel cannot unpack.
	ErrCorrupt = errors.New("corrupt initramfs")
	// ErrTooLarge means that an archive unpacks to more than a guest is given.
	ErrTooLarge = errors.New("initramfs too large")
)

// Error is the error type of this package.
type Error struct {
	Op  string // "open", "build" or "check"
	Err error
}

func (e *Error) Error() string { return "initramfs: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
