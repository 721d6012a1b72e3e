// Package sandbox runs commands in Linux microVMs inside the calling process.
//
//	sb, err := sandbox.Create(ctx, "demo", sandbox.WithEphemeral())
//	if err != nil { … }
//	defer sb.Close()
//	out, err := sb.Exec(ctx, "uname", []string{"-a"})
//
// Each sandbox is a virtual machine of its own, with its own kernel; nothing
// is shared with the host but what the options say. It needs Linux on x86-64
// with a usable /dev/kvm; elsewhere Create fails with [ErrUnsupported] or
// [ErrNoKVM].
//
// # Concurrency
//
// All functions and methods may be called from any goroutine, unless their
// documentation says otherwise. Everything that blocks takes a context, and
// cancelling it stops the work in the guest as well.
//
// # Ownership
//
// A sandbox lives in the process that created or started it and ends with it, also when
// that process is killed. Close ends it earlier; a sandbox that is never
// closed keeps its memory and threads until the process ends.
//
// What stays is its record, with its configuration and its writable disk, under
// its name: [Start] boots it again, in any process, until [Remove] deletes it.
// An ephemeral one ([WithEphemeral]) leaves nothing.
//
// # Errors
//
// Every error that callers may want to tell apart matches one of the
// sentinels below with errors.Is, or is an [ExecError], [ExitError],
// [InterruptedError] or [CrashError].
package sandbox
