package sandbox

import (
	"errors"
	"syscall"

	"github.com/hutchvm/hutch/agent/proto"
)

// ExecErrorKind is why a command could not start.
type ExecErrorKind = proto.StartErrorKind

// The kinds of ExecError.
const (
	ExecOther            = proto.StartOther
	ExecNotFound         = proto.StartNotFound         // no such command, or its interpreter is missing
	ExecPermissionDenied = proto.StartPermissionDenied // not executable for this user, or a directory
	ExecNotExecutable    = proto.StartNotExecutable    // a file that the kernel cannot run
	ExecBadCwd           = proto.StartBadCwd           // the working directory is missing, not one, or closed to the user
	ExecBadArgs          = proto.StartBadArgs          // arguments and environment are too large
	ExecResourceLimit    = proto.StartResourceLimit    // out of processes or descriptors, or a bad limit
	ExecUserSetup        = proto.StartUserSetup        // the user does not resolve or cannot be taken on
	ExecOutOfMemory      = proto.StartOutOfMemory
	ExecPTY              = proto.StartPTY // no terminal to be had
)

// ExecError says that a command did not start, and why. It unwraps to its Errno
// when it has one, so errors.Is(err, fs.ErrNotExist) and the like work.
type ExecError struct {
	Kind  ExecErrorKind
	Errno syscall.Errno
	// Stage is the step that failed: "user", "cwd", "lookup", "exec", …
	Stage string
	// Message names what is at fault.
	Message string
}

func (e *ExecError) Error() string { return e.Kind.String() + ": " + e.Message }

// Unwrap gives the guest's error number, if there is one.
func (e *ExecError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// asExecError finds the agent's report of a failed start in err.
func asExecError(err error) *ExecError {
	var se *proto.StartError
	if !errors.As(err, &se) {
		return nil
	}
	return &ExecError{Kind: se.Kind, Errno: syscall.Errno(se.Errno), Stage: se.Stage.String(), Message: se.Message}
}
