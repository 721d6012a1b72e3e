//go:build !linux || !amd64

package kvm

import (
	"syscall"
	"unsafe"
)

const supported = false

func sysOpen(string) (int, error) { return -1, ErrUnsupported }

func sysClose(int) error { return ErrUnsupported }

func sysIoctlVal(int, uintptr, uintptr) (uintptr, syscall.Errno) { return 0, syscall.ENOSYS }

func sysIoctlPtr(int, uintptr, unsafe.Pointer) (uintptr, syscall.Errno) { return 0, syscall.ENOSYS }

func sysMapRun(int, int) ([]byte, error) { return nil, ErrUnsupported }

func sysUnmap([]byte) error { return ErrUnsupported }

func sysGettid() int { return 0 }

func sysKick(int) error { return ErrUnsupported }
