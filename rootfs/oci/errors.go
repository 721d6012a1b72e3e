package oci

import (
	"errors"
	"fmt"
)

// Errors of this package, to be tested for with errors.Is. What fails in Pull
// matches ErrImagePull (unless the context ended) and mostly one of the more
// exact ones as well.
var (
	// ErrImageNotFound means that there is no image of that name or digest: in
	// the registry for Pull, in the store otherwise.
	ErrImageNotFound = errors.New("image not found")
	// ErrImagePull means that an image could not be had from its registry.
	ErrImagePull = errors.New("image cannot be pulled")
	// ErrInvalidReference means that a name is no image reference.
	ErrInvalidReference = errors.New("invalid image reference")
	// ErrInUse means that an image cannot be removed because a sandbox needs it.
	ErrInUse = errors.New("image is in use")
	// ErrAuth means that the registry wants other credentials, or the
	// credentials could not be had.
	ErrAuth = errors.New("registry denied access")
	// ErrNetwork means that the registry was not reached, or the connection to
	// it broke more often than is worth retrying.
	ErrNetwork = errors.New("registry not reached")
	// ErrDigest means that content does not match its digest or size.
	ErrDigest = errors.New("content does not match its digest")
	// ErrLimit means that an image is larger than one of the Max constants.
	ErrLimit = errors.New("image exceeds a limit")
	// ErrUnsupportedImage means that this is no Linux image for x86-64, or of a
	// kind that is not known here.
	ErrUnsupportedImage = errors.New("image not supported")
	// ErrInvalidImage means that a manifest, a configuration, a layer or an
	// archive is malformed.
	ErrInvalidImage = errors.New("invalid image")
	// ErrInvalidOptions means that options contradict each other or lack something.
	ErrInvalidOptions = errors.New("invalid options")
	// ErrUnsupported means that this platform lacks file locks.
	ErrUnsupported = errors.New("not supported on this platform")
)

// Error is the error type of this package.
type Error struct {
	Op  string // "pull", "load", "save", "get", "remove", "prune", …
	Ref string // the reference or path, "" if there is none
	Err error
}

func (e *Error) Error() string {
	if e.Ref == "" {
		return "image " + e.Op + ": " + e.Err.Error()
	}
	return "image " + e.Op + " " + e.Ref + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func opError(op, ref string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err // said already
	}
	return &Error{Op: op, Ref: ref, Err: err}
}

// fail makes an error that matches the sentinel.
func fail(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: %w", sentinel, fmt.Errorf(format, args...))
}
