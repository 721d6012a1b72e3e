package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// modprobeName is the name under which the kernel calls this executable.
const modprobeName = "modprobe"

// Main must be the first call of a program that carries the inside of an
// emulated host. In any other process it returns at once. As the first process
// of such a host, or as its module loader, it never returns.
func Main() {
	switch {
	case os.Getpid() == 1 && os.Args[0] == InitPath:
		runInit()
	case filepath.Dir(os.Args[0]) == RuntimeDir && filepath.Base(os.Args[0]) == modprobeName:
		os.Exit(runModprobe(os.Args[1:]))
	}
}

// runInit ends the machine when it cannot go on: the text is found on the
// console and the outer side sees its connection close.
func runInit() {
	fmt.Fprintln(os.Stderr, "kvmhost init:", new(machine).run())
	// The console is drained by the emulator in its own time.
	time.Sleep(200 * time.Millisecond)
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {} // the first process must not end
}

// uptime is the time since the kernel's start, in nanoseconds.
func uptime() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return t.Nano()
}
