// Package boot implements the Linux/x86-64 boot protocol for a machine without
// firmware: it loads an ELF64 vmlinux or a bzImage into guest memory and
// writes what the kernel's 64-bit entry point expects to find there, the zero
// page with its e820 map, identity page tables, a GDT, an MP table and the
// command line.
//
// The source of every magic number is Documentation/arch/x86/boot.rst and
// arch/x86/include/uapi/asm/bootparam.h of the Linux kernel, and Intel's
// MultiProcessor Specification 1.4 for the MP table.
//
// Kernel and initramfs bytes are untrusted: every offset and size in them is
// checked against the file and against guest memory before use.
package boot

import (
	"errors"
	"fmt"
)

// Errors that callers can test for with errors.Is.
var (
	// ErrNotKernel means that the file is neither an ELF64 x86-64 executable nor a bzImage.
	ErrNotKernel = errors.New("not an ELF64 vmlinux or a bzImage for x86-64")
	// ErrTruncated means that the kernel file ends before what its headers announce.
	ErrTruncated = errors.New("kernel file is truncated")
	// ErrBadKernel means that the kernel's headers contradict themselves.
	ErrBadKernel = errors.New("kernel headers are malformed")
	// ErrTooSmall means that guest memory cannot hold kernel, initramfs and boot data.
	ErrTooSmall = errors.New("guest memory is too small")
	// ErrTopology means that the number of CPUs or of an interrupt is out of range.
	ErrTopology = errors.New("bad topology")
	// ErrCommandLine means that the kernel command line is too long or holds a NUL byte.
	ErrCommandLine = errors.New("bad kernel command line")
)

// OpError is the error type of this package: what was being done, and why it stopped.
type OpError struct {
	Op  string // "parse ELF", "load bzImage", "write zero page", …
	Err error
}

func (e *OpError) Error() string { return "boot: " + e.Op + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

func opErr(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Err: err}
}

func because(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...))
}
