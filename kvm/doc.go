// Package kvm is a typed, allocation-conscious layer over the ioctls of /dev/kvm.
//
// It holds no policy and no global state: a [System] is an open /dev/kvm, a [VM] is one
// virtual machine, a [VCPU] is one virtual processor. Names follow the kernel's
// Documentation/virt/kvm/api.rst in Go case; structures have the kernel's layout, which the
// tests compare with the C headers, so they may be written to a snapshot as they are.
//
// # Concurrency
//
// The methods of System and VM may be called from any goroutine. The kernel serialises the
// calls on one vCPU, and a call on a vCPU that is inside [VCPU.Run] waits until Run returns;
// only [VCPU.Kick] is meant for use from other goroutines at any time.
//
// # Closing
//
// Close is idempotent everywhere. Nothing is closed by a finalizer. The kernel keeps a
// virtual machine alive until its VM and all its VCPUs are closed, in any order. After Close
// every method answers [ErrClosed].
//
// # Platforms
//
// Only linux/amd64 talks to a kernel. Elsewhere the package compiles and [Open] answers
// [ErrUnsupported].
package kvm
