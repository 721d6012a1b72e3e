package guest

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper waits for every child of this process, also for those it was given
// when their parents died. Nothing else in the program may wait for a process.
type reaper struct {
	mu       sync.Mutex
	children map[int]*child // started here and not reaped yet
	none     chan struct{}  // closed when no child is left; see drained
	signals  chan os.Signal
}

// child is a process that was started here.
type child struct {
	pid    int
	exited chan struct{} // closed after status and usage are set
	status unix.WaitStatus
	usage  unix.Rusage
}

func newReaper() *reaper {
	return &reaper{children: make(map[int]*child), signals: make(chan os.Signal, 1)}
}

// fork calls start, which makes a process, and enters the process into the
// table before it can be reaped. start must not block on another process.
func (r *reaper) fork(start func() (pid int, err error)) (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := start()
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid, exited: make(chan struct{})}
	r.children[pid] = c
	return c, nil
}

// kill sends a signal to a child's process group, and does nothing once the
// child has been reaped: from then on the number may be another's.
func (r *reaper) kill(c *child, sig unix.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.children[c.pid] == c {
		unix.Kill(-c.pid, sig)
	}
}

// run reaps until stop is closed.
func (r *reaper) run(stop <-chan struct{}) {
	signal.Notify(r.signals, unix.SIGCHLD)
	defer signal.Stop(r.signals)
	for {
		for r.one() {
		}
		select {
		case <-r.signals:
		case <-stop:
			return
		}
	}
}

// one reaps one process, and tells whether there may be more to reap. The lock
// spans the wait and the look into the table, so that the number cannot have
// gone to a new child in between.
func (r *reaper) one() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status unix.WaitStatus
	var usage unix.Rusage
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
	if err == unix.ECHILD && r.none != nil {
		close(r.none)
		r.none = nil
	}
	if err == unix.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if c := r.children[pid]; c != nil {
		delete(r.children, pid)
		c.status, c.usage = status, usage
		close(c.exited)
	}
	return true
}

// drained returns a channel that is closed once there is no child left, which
// for process 1 means no process at all.
func (r *reaper) drained() <-chan struct{} {
	r.mu.Lock()
	if r.none == nil {
		r.none = make(chan struct{})
	}
	none := r.none
	r.mu.Unlock()
	select {
	case r.signals <- syscall.SIGCHLD: // look now, there may be none already
	default:
	}
	return none
}
