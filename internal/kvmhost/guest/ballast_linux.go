package guest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ioctls of linux/kvm.h that take a plain number.
const (
	kvmCreateVM      = 0xAE01
	kvmCreateVCPU    = 0xAE41
	kvmCreateIRQChip = 0xAE60
)

// holdVirtualization opens two small virtual machines and never closes them.
//
// With the first virtual machine, the kernel switches hardware virtualization on
// and patches its own code, the scheduler's hottest path among it, and with the
// last one it takes all that back. An emulator that translates code while
// another of its CPUs patches it can keep a stale translation, and then all CPUs
// trap on a breakpoint that is no longer there, for ever. A command that makes
// and closes machines in a loop hits that within a minute; while these two
// exist, nothing is patched.
func holdVirtualization() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// One vCPU without a local APIC and one with it that is disabled, as after a
	// reset: each kind has a switch of its own.
	for _, withAPIC := range []bool{false, true} {
		vm, err := number(int(f.Fd()), kvmCreateVM)
		if err != nil {
			return fmt.Errorf("create a virtual machine: %w", err)
		}
		unix.CloseOnExec(vm)
		if withAPIC {
			if _, err := number(vm, kvmCreateIRQChip); err != nil {
				return fmt.Errorf("create an interrupt controller: %w", err)
			}
		}
		cpu, err := number(vm, kvmCreateVCPU)
		if err != nil {
			return fmt.Errorf("create a virtual CPU: %w", err)
		}
		unix.CloseOnExec(cpu)
	}
	return nil
}

// number does an ioctl whose argument is zero.
func number(fd int, request uint) (int, error) {
	for {
		n, err := unix.IoctlRetInt(fd, request)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
