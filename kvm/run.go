package kvm

import (
	"sync/atomic"
	"syscall"
)

// Run lets the guest run until it needs the caller.
//
// The calling goroutine must be locked to its OS thread (runtime.LockOSThread) for as long as
// the vCPU runs: Kick signals the thread, and the kernel keeps per-thread state for a vCPU.
// One goroutine at a time runs a vCPU; a second one gets [ErrRunning].
//
// A return with [ExitIntr] means that nothing happened: a kick or a signal of the Go runtime
// arrived, or a secondary processor was woken. Look at what a kick may have announced, and
// call Run again. An error is final unless the caller knows better: it is the errno of KVM_RUN,
// which is never retried here, and the Exit beside it is what the kernel left in the area.
//
// Port and MMIO reads take their answer from the exit's Data at the next Run, and only then
// does the guest's register change. To complete such an access without running the guest, as
// a snapshot must, call Kick and then Run until it returns ExitIntr.
func (c *VCPU) Run() (Exit, error) {
	c.mu.Lock()
	if c.closed || c.tid != 0 {
		defer c.mu.Unlock()
		if c.closed {
			return Exit{}, newOpError(reqRun.String(), ErrClosed)
		}
		return Exit{}, newOpError(reqRun.String(), ErrRunning)
	}
	c.tid = sysGettid()
	c.mu.Unlock()

	// Close answers ErrRunning while tid is set, so the descriptor and the page stay.
	// This is Syscall, not RawSyscall: the scheduler takes the P from a guest that computes.
	_, errno := sysIoctlVal(c.h.fd, uintptr(reqRun), 0)

	c.mu.Lock()
	c.tid = 0
	if errno == syscall.EINTR {
		// Seen, so the kicks so far are served: their senders' news was there before the
		// flag was. After any other return the flag stays and ends the next Run at once.
		atomic.AndUint32(c.control, ^uint32(immediateExit))
	}
	c.mu.Unlock()

	switch errno {
	case 0:
		return exitOf(c.page), nil
	case syscall.EINTR, syscall.EAGAIN:
		// EAGAIN: a processor that waited for its start-up message has got it.
		return Exit{Reason: ExitIntr, page: c.page}, nil
	}
	return exitOf(c.page), newOpError(reqRun.String(), errno)
}

// Kick makes the current Run, or else the next one, return soon with [ExitIntr]. It may be
// called from any goroutine at any time, waits for nothing, allocates nothing, and is never
// lost; kicks that come before Run has returned are merged into one. On a closed vCPU it does
// nothing.
//
// It sets kvm_run.immediate_exit, which KVM_RUN looks at on entry, and then interrupts the
// thread if it may already be past that point. The signal is SIGURG: the Go runtime has a
// handler for it in every program, uses it for its own preemption, and is ready for spurious
// ones at any moment, so neither a handler of our own nor a blocked signal is needed. Its
// SA_RESTART does not matter, since KVM_RUN answers EINTR, never ERESTARTSYS.
func (c *VCPU) Kick() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	if atomic.OrUint32(c.control, immediateExit)&immediateExit != 0 {
		// An earlier kick did it all and has not been seen yet.
		return nil
	}
	if c.tid == 0 {
		return nil
	}
	return newOpError("tgkill", sysKick(c.tid))
}
