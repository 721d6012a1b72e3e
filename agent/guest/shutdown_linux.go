package guest

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// killPatience bounds the wait for processes after SIGKILL. One that hangs in
// the kernel must not keep the machine up.
const killPatience = 2 * time.Second

// goDown ends every process and writes everything to the disks. It reports
// whether some process had to be killed.
func (c *control) goDown(grace time.Duration) (killed bool) {
	if c.server != nil {
		c.server.stop()
		killed = c.server.reaper.endAll(grace)
	}
	unix.Sync()
	if c.root != nil {
		c.root.seal()
	}
	return killed
}

// endAll ends every other process of this machine, or of its PID namespace.
func (r *reaper) endAll(grace time.Duration) (killed bool) {
	if os.Getpid() != 1 {
		return false // only process 1 is spared by what follows
	}
	gone := r.drained()
	unix.Kill(-1, unix.SIGTERM)
	unix.Kill(-1, unix.SIGCONT) // a stopped process could not act on it
	if waitFor(gone, grace) {
		return false
	}
	// Twice: a process may have been on its way out of a fork.
	unix.Kill(-1, unix.SIGKILL)
	if !waitFor(gone, killPatience/2) {
		unix.Kill(-1, unix.SIGKILL)
		waitFor(gone, killPatience/2)
	}
	return true
}

func waitFor(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// powerOff takes the machine down: by its control port, or, where there is none,
// by a restart, which every machine monitor sees in one way or another.
func (c *control) powerOff() error {
	tell(proto.PowerOffMark)
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
