package kvm

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const supported = true

func sysOpen(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func sysClose(fd int) error { return unix.Close(fd) }

// sysIoctlVal passes a plain number.
func sysIoctlVal(fd int, req, arg uintptr) (uintptr, syscall.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
	return r, errno
}

// sysIoctlPtr passes a pointer, for the duration of the call only.
func sysIoctlPtr(fd int, req uintptr, arg unsafe.Pointer) (uintptr, syscall.Errno) {
	// SAFETY: the conversion to uintptr stands in the argument list of the system call, so the
	// compiler keeps what arg points to alive and in place until the call returns.
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	return r, errno
}

// sysMapRun maps a vCPU's kvm_run area.
func sysMapRun(fd, size int) ([]byte, error) {
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func sysUnmap(b []byte) error { return unix.Munmap(b) }

func sysGettid() int { return unix.Gettid() }

// kickSignal interrupts KVM_RUN; see [VCPU.Kick] for the choice.
const kickSignal = unix.SIGURG

func sysKick(tid int) error { return unix.Tgkill(unix.Getpid(), tid, kickSignal) }
