package kvmtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Of linux/kvm.h. This package does without package kvm, so that kvm's own tests can use it.
const (
	getAPIVersion = 0xae00
	createVM      = 0xae01
	apiVersion    = 12
)

// probe makes a virtual machine and drops it.
func probe() error {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", Device, err)
	}
	defer unix.Close(fd)
	v, err := unix.IoctlRetInt(fd, getAPIVersion)
	if err != nil {
		return fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	}
	if v != apiVersion {
		return fmt.Errorf("API version %d, want %d", v, apiVersion)
	}
	for {
		vm, err := unix.IoctlRetInt(fd, createVM)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("KVM_CREATE_VM: %w", err)
		}
		return unix.Close(vm)
	}
}
