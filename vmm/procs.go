package vmm

import (
	"runtime"
	"sync"
)

// procs counts the vCPUs of this process.
var procs struct {
	sync.Mutex
	vcpus int
	base  int // GOMAXPROCS before the first of them
}

// takeProcessor sees to it that the Go scheduler has a processor for each running
// vCPU beside those that it had, and returns what ends that.
//
// A vCPU in its guest is in a system call for Go, which takes the processor of
// such a thread away only when its monitor looks: after 20 µs when that is busy,
// after up to 10 ms when it is not. Where vCPUs hold all processors, every
// request to a device waits for that (measured: 99 instead of 415 disk reads a
// second). A change of GOMAXPROCS stops the world, so it is rare: the number
// grows by more than is needed and never shrinks. Idle processors cost nothing.
func takeProcessor() (giveBack func()) {
	procs.Lock()
	defer procs.Unlock()
	now := runtime.GOMAXPROCS(0)
	if procs.base == 0 {
		procs.base = now
	}
	if procs.vcpus++; procs.base+procs.vcpus > now {
		runtime.GOMAXPROCS(procs.base + 2*procs.vcpus)
	}
	return func() {
		procs.Lock()
		procs.vcpus--
		procs.Unlock()
	}
}
