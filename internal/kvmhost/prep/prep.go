// Package prep makes ready what an emulated KVM host needs: QEMU, a kernel
// with its modules, and a template of the scratch disk.
//
// Everything comes from the machine's own package sources, by package name.
// The kernel package is downloaded and unpacked into a cache directory and
// never installed. A finished preparation is a directory that appears in one
// step by rename, and a lock file keeps several processes from preparing at
// once, so the tests of many packages may start side by side.
package prep

import (
	"errors"
	"fmt"
	"io"
)

var (
	// ErrNoQEMU is returned when QEMU is missing and cannot be installed.
	ErrNoQEMU = errors.New("qemu-system-x86_64 not found")
	// ErrNoTool is returned when another program from a Debian package is missing.
	ErrNoTool = errors.New("program not found")
	// ErrNoKernel is returned when no kernel package can be had.
	ErrNoKernel = errors.New("no kernel package")
)

// Error is what every function of this package returns on failure.
type Error struct {
	Op  string // what was being prepared
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("prep: %s: %v", e.Op, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// QEMU is an emulator that was found or installed.
type QEMU struct {
	Path  string
	Major int // first number of its version
	// QuickFirmware is true if it brings a firmware that starts a kernel at once.
	QuickFirmware bool
}

// Host is a finished preparation.
type Host struct {
	QEMU    QEMU
	Kernel  string // an ELF kernel that boots by PVH
	Modules string // directory of the module tree, with its index
	Scratch string // template of the scratch disk; never written to
	Release string // the kernel package
	States  string // directory for frozen machines
}

// Config says where and how to prepare. The zero value uses the defaults.
type Config struct {
	// Cache is the cache directory; empty means hutch-kvmhost in the user's
	// cache directory.
	Cache string
	// Log receives progress lines, each ending in a newline, when something
	// slow is done; nil discards them.
	Log io.Writer
	// Refresh prepares the newest kernel package even if an older one is ready.
	Refresh bool
}

func (c Config) logf(format string, args ...any) {
	if c.Log != nil {
		fmt.Fprintf(c.Log, format+"\n", args...)
	}
}
