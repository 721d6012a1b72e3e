package kvm

import (
	"errors"
	"fmt"
	"syscall"
)

// apiVersion is the only version that a user may go on with (api.rst, 4.1).
const apiVersion = 12

// System is an open /dev/kvm.
type System struct{ h handle }

// Open opens a KVM device node, normally "/dev/kvm", and checks what every other call here
// relies on: API version 12 and KVM_CAP_IMMEDIATE_EXIT (Linux 4.11).
//
// The error is an [*OpError] around [ErrUnsupported], [ErrNoDevice], [ErrPermission],
// [ErrVersion], [ErrCapability] or the errno of open(2).
func Open(path string) (*System, error) {
	if !supported {
		return nil, newOpError("open "+path, ErrUnsupported)
	}
	fd, err := sysOpen(path)
	if err != nil {
		return nil, openError(path, err)
	}
	s := &System{h: handle{fd: fd}}
	if err := s.check(path); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *System) check(path string) error {
	v, err := s.APIVersion()
	if errors.Is(err, syscall.ENOTTY) {
		return newOpError("open "+path, fmt.Errorf("%w (this is another device)", ErrNoDevice))
	}
	if err != nil {
		return err
	}
	n, err := s.CheckExtension(CapImmediateExit)
	if err != nil {
		return err
	}
	return newOpError("open "+path, compatible(v, n))
}

// compatible judges a kernel by its API version and by KVM_CAP_IMMEDIATE_EXIT.
func compatible(version, immediateExit int) error {
	if version != apiVersion {
		return fmt.Errorf("%w: %d, want %d", ErrVersion, version, apiVersion)
	}
	if immediateExit == 0 {
		return fmt.Errorf("%w: KVM_CAP_IMMEDIATE_EXIT, which Linux has since 4.11", ErrCapability)
	}
	return nil
}

// Close closes the device. Virtual machines made from it go on.
func (s *System) Close() error { return s.h.close("close /dev/kvm") }

// APIVersion returns the kernel's KVM API version.
func (s *System) APIVersion() (int, error) { return s.h.value(reqGetAPIVersion, 0) }

// CheckExtension returns 0 if the kernel lacks the capability, else 1 or a figure whose
// meaning depends on the capability (api.rst, chapters 6 to 8).
func (s *System) CheckExtension(c Cap) (int, error) {
	return s.h.value(reqCheckExtension, uintptr(c))
}

// VCPUMmapSize returns the size in bytes of a vCPU's shared kvm_run area.
func (s *System) VCPUMmapSize() (int, error) { return s.h.value(reqGetVCPUMmapSize, 0) }

// CreateVM makes a virtual machine without memory, interrupt controllers or vCPUs.
func (s *System) CreateVM() (*VM, error) {
	size, err := s.VCPUMmapSize()
	if err != nil {
		return nil, err
	}
	if size < minRunSize {
		return nil, newOpError(reqGetVCPUMmapSize.String(), fmt.Errorf("%d bytes, want at least %d", size, minRunSize))
	}
	for {
		fd, err := s.h.value(reqCreateVM, 0)
		if errors.Is(err, syscall.EINTR) {
			// Signals, among them the Go runtime's preemption, interrupt it half way.
			continue
		}
		if err != nil {
			return nil, err
		}
		return &VM{h: handle{fd: fd}, runSize: size}, nil
	}
}
