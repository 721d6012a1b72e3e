package guest

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// The byte and the I/O port by which the host takes the time of the guest's
// first own instruction. They are Firecracker's, so its figures compare.
const (
	markPort  = 0x3f0
	markValue = 123
)

// outb writes a byte to an I/O port that ioperm has opened.
func outb(port uint16, value uint8)

// mark tells the host that process 1 runs. Where ports are closed, it does
// nothing.
func mark() {
	runtime.LockOSThread() // the permission is the thread's
	defer runtime.UnlockOSThread()
	if unix.Ioperm(markPort, 1, 1) == nil {
		outb(markPort, markValue)
		unix.Ioperm(markPort, 1, 0)
	}
}
