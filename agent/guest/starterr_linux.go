package guest

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// startError describes a failed step of starting a command. what names the
// thing at fault.
func startError(stage proto.StartStage, what string, err error) *proto.StartError {
	var failed *proto.StartError
	if errors.As(err, &failed) {
		return failed
	}
	e := &proto.StartError{Kind: proto.StartOther, Stage: stage, Message: err.Error()}
	if what != "" {
		e.Message = what + ": " + e.Message
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		e.Errno = uint32(errno)
		e.Kind = errnoKind(errno)
	}
	switch {
	case stage == proto.StageCwd && e.Kind != proto.StartOutOfMemory:
		e.Kind = proto.StartBadCwd
	case stage == proto.StageUser:
		e.Kind = proto.StartUserSetup
	case stage == proto.StageRequest:
		e.Kind = proto.StartBadArgs
	case stage == proto.StageRlimit:
		e.Kind = proto.StartResourceLimit
	}
	return e
}

// errnoKind is the kind of an error of making pipes, forking or execve.
func errnoKind(errno unix.Errno) proto.StartErrorKind {
	switch errno {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG:
		return proto.StartNotFound
	case unix.EACCES, unix.EPERM, unix.EISDIR:
		return proto.StartPermissionDenied
	case unix.ENOEXEC, unix.ELIBBAD, unix.EINVAL:
		return proto.StartNotExecutable
	case unix.E2BIG:
		return proto.StartBadArgs
	case unix.EAGAIN, unix.EMFILE, unix.ENFILE, unix.EUSERS:
		return proto.StartResourceLimit
	case unix.ENOMEM:
		return proto.StartOutOfMemory
	}
	return proto.StartOther
}
