package guest

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// outb writes a byte to an I/O port that ioperm has opened.
func outb(port uint16, value uint8)

// tell writes to the machine's control port. Where ports are closed, it does
// nothing.
func tell(value uint8) {
	runtime.LockOSThread() // the permission is the thread's
	defer runtime.UnlockOSThread()
	if unix.Ioperm(proto.ControlIOPort, 1, 1) == nil {
		outb(proto.ControlIOPort, value)
		unix.Ioperm(proto.ControlIOPort, 1, 0)
	}
}
