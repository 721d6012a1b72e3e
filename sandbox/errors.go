package sandbox

import (
	"errors"
	"fmt"

	"github.com/hutchvm/hutch/rootfs/oci"
)

// Errors of this package, to be tested for with errors.Is.
var (
	// ErrInvalidConfig means that an option cannot be used; the error names it.
	ErrInvalidConfig = errors.New("invalid configuration")
	// ErrNotFound means that there is no sandbox of that name.
	ErrNotFound = errors.New("no such sandbox")
	// ErrAlreadyExists means that there is a sandbox of that name already.
	ErrAlreadyExists = errors.New("sandbox already exists")
	// ErrNotRunning means that the sandbox has stopped, or is paused where it must run.
	ErrNotRunning = errors.New("sandbox is not running")
	// ErrStillRunning means that the sandbox runs, in this process or another, where it must not.
	ErrStillRunning = errors.New("sandbox is still running")
	// ErrImageNotFound means that there is no image of that name, neither here
	// nor, where that was asked, in its registry; or no file of that path.
	ErrImageNotFound = oci.ErrImageNotFound
	// ErrImagePull means that an image could not be had from its registry.
	ErrImagePull = oci.ErrImagePull
	// ErrExecTimeout means that a command was killed at the end of its time.
	ErrExecTimeout = errors.New("command timed out")
	// ErrOutputLimit means that a command was killed because it printed more
	// than Exec or Collect may keep.
	ErrOutputLimit = errors.New("command printed too much to keep")
	// ErrNoKVM means that this machine has no KVM that can run Linux; the text says what to do.
	ErrNoKVM = errors.New("no usable KVM")
	// ErrUnsupported means that this platform or kernel lacks something that Hutch needs.
	ErrUnsupported = errors.New("not supported on this platform")
	// ErrVolumeNotFound means that there is no volume of that name.
	ErrVolumeNotFound = errors.New("no such volume")
	// ErrVolumeExists means that there is a volume of that name already.
	ErrVolumeExists = errors.New("volume already exists")
	// ErrVolumeInUse means that a sandbox has the volume mounted.
	ErrVolumeInUse = errors.New("volume is in use")
	// ErrNetworkPolicy means that the policy of WithNetwork cannot be used.
	ErrNetworkPolicy = errors.New("network policy")
	// ErrClosed means that the object was closed.
	ErrClosed = errors.New("closed")
)

// OpError is what a failed operation on a sandbox returns.
type OpError struct {
	Op      string // "create", "exec", …
	Sandbox string // its name
	Err     error
}

func (e *OpError) Error() string { return e.Op + " " + e.Sandbox + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

func (s *Sandbox) opErr(op string, err error) error { return newOpError(op, s.name, err) }

func newOpError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Sandbox: name, Err: err}
}

// invalid is an ErrInvalidConfig that names the option.
func invalid(option, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidConfig, option, fmt.Sprintf(format, args...))
}

// CrashError says how a sandbox ended that nobody stopped. It matches ErrNotRunning.
type CrashError struct {
	// Reason is why the machine stopped, such as "kernel panic: …" or "triple fault".
	Reason string
	// Console is the end of what the guest's kernel printed.
	Console string
}

func (e *CrashError) Error() string {
	s := "sandbox crashed: " + e.Reason
	if e.Console != "" {
		s += "\nlast console output:\n" + e.Console
	}
	return s
}

// Is makes every CrashError match ErrNotRunning.
func (e *CrashError) Is(target error) bool { return target == ErrNotRunning }
