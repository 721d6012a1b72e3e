package proto

import "errors"

// Errors of the protocol itself. All of them mean that the connection is of no
// further use.
var (
	// ErrVersion: the peer's handshake is of another protocol or version.
	ErrVersion = errors.New("protocol version mismatch")
	// ErrTooLarge: a frame or a list exceeds its bound.
	ErrTooLarge = errors.New("too large")
	// ErrMalformed: a message is cut short or has a field that is not known.
	ErrMalformed = errors.New("malformed message")
	// ErrUnexpected: a frame that is not allowed at this point.
	ErrUnexpected = errors.New("unexpected frame")
)

// Error is a violation of the protocol: where it was seen, and what it was
// (one of the errors above).
type Error struct {
	Op  string // "handshake", "frame", "exec", …
	Err error
}

func (e *Error) Error() string { return "proto: " + e.Op + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }
