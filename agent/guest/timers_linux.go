package guest

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// monitorSlack is how late, in nanoseconds, the Go runtime's monitor thread
	// may wake. It sleeps for 20 µs at a time while the agent is busy, and each
	// sleep costs a virtual machine several exits: a fifth of the speed of a
	// stream. What it looks for, goroutines that run for 10 ms and more, can wait.
	monitorSlack = 5_000_000
	// defaultSlack is Linux's own.
	defaultSlack = 50_000
)

// relaxMonitor gives the runtime's monitor thread that slack. It is the first
// thread that the runtime starts.
func relaxMonitor() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	monitor := 0
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil && tid != os.Getpid() && (monitor == 0 || tid < monitor) {
			monitor = tid
		}
	}
	if monitor != 0 {
		os.WriteFile("/proc/"+strconv.Itoa(monitor)+"/timerslack_ns", strconv.AppendInt(nil, monitorSlack, 10), 0)
	}
}

// forkExec starts a process whose timers are as exact as ever: slack goes from
// a thread to those that it makes, and the monitor makes threads too.
func forkExec(exe string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, defaultSlack, 0, 0, 0)
	return syscall.ForkExec(exe, argv, attr)
}
