package kvm

import (
	"errors"
	"fmt"
	"syscall"
)

// Sentinels for errors.Is. Each arrives wrapped in an [*OpError], most with the errno as well.
var (
	// ErrUnsupported says that this platform has no KVM that the package can drive.
	ErrUnsupported = errors.New("KVM needs linux/amd64")
	// ErrNoDevice says that the device node is absent or that no KVM module serves it.
	ErrNoDevice = errors.New("no KVM device: load kvm_intel or kvm_amd, and turn virtualization on in the firmware or, in a virtual machine, nested virtualization on its host")
	// ErrPermission says that the caller may not open the device.
	ErrPermission = errors.New("permission denied: add the user to group kvm and log in again")
	// ErrVersion says that the kernel speaks another KVM API than version 12, the only stable one.
	ErrVersion = errors.New("unknown KVM API version")
	// ErrCapability says that the kernel lacks a capability that this package cannot do without.
	ErrCapability = errors.New("capability missing")
	// ErrClosed says that the object was closed.
	ErrClosed = errors.New("already closed")
	// ErrRunning says that a vCPU is inside Run: it cannot be closed or run a second time.
	ErrRunning = errors.New("vcpu is running")
	// ErrExit says that an exit does not hold what was asked of it: another reason, or fields
	// that point outside the kvm_run mapping.
	ErrExit = errors.New("exit does not hold such data")
)

// OpError is the error type of this package's operations.
type OpError struct {
	// Op is the ioctl (as in "KVM_CREATE_VM") or system call that was refused.
	Op string
	// Err is the reason; errors.Is finds a sentinel or a syscall.Errno in it.
	Err error
}

func (e *OpError) Error() string { return "kvm: " + e.Op + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *OpError) Unwrap() error { return e.Err }

// MSRError says that the kernel refused a model-specific register. KVM handles a list in
// order and stops at the first register it refuses, so the ones before it were handled.
type MSRError struct {
	// Index is the register that was refused.
	Index uint32
	// Handled is how many entries of the caller's list were handled before it.
	Handled int
	// Total is the length of the caller's list.
	Total int
}

func (e *MSRError) Error() string {
	return fmt.Sprintf("msr %#x refused (entry %d of %d)", e.Index, e.Handled+1, e.Total)
}

func newOpError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Err: err}
}

// openError adds to an errno of open(2) what the user can do about it.
func openError(path string, err error) error {
	var sentinel error
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		sentinel = ErrNoDevice
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		sentinel = ErrPermission
	default:
		return newOpError("open "+path, err)
	}
	return newOpError("open "+path, fmt.Errorf("%w (%w)", sentinel, err))
}
