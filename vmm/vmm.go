// Package vmm puts a virtual machine together out of KVM, guest memory, a
// Linux kernel and virtio devices, and runs it in the caller's process.
//
// A [Machine] is made by [New], started once by Start, may be paused and
// resumed, and stops for one of the reasons of [Reason]. Each virtual CPU is a
// goroutine locked to an OS thread; device work never happens on those threads
// but on the devices' own goroutines, woken through ioeventfd.
//
// The guest is not trusted: whatever it does ends at worst in a stopped
// machine with a Reason.
package vmm

import (
	"errors"
	"fmt"
)

// Errors that callers can test for with errors.Is.
var (
	// ErrConfig matches every *ConfigError.
	ErrConfig = errors.New("invalid machine configuration")
	// ErrKVM means that the host's KVM cannot be used; the error wrapped beside
	// it says why.
	ErrKVM = errors.New("KVM cannot be used")
	// ErrSnapshot means that a snapshot is damaged, or of another kind of machine.
	ErrSnapshot = errors.New("snapshot cannot be used")
	// ErrState means that the machine is not in a state that allows the call.
	ErrState = errors.New("machine is in the wrong state")
)

// OpError is the error type of this package.
type OpError struct {
	Op  string
	Err error
}

func (e *OpError) Error() string { return "vmm: " + e.Op + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

func opErr(op string, err error) error {
	if err == nil {
		return nil
	}
	return &OpError{Op: op, Err: err}
}

// State is where a machine is in its life.
type State int

// A machine goes Created → Running ⇄ Paused → Stopped, or straight to Stopped.
const (
	Created State = iota
	Running
	Paused
	Stopped
)

func (s State) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Paused:
		return "paused"
	case Stopped:
		return "stopped"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Reason says why a machine stopped.
type Reason int

const (
	// NotStopped is the reason of a machine that has not stopped.
	NotStopped Reason = iota
	// Killed: the host stopped it, by Stop, Close or a cancelled context.
	Killed
	// PowerOff: the guest wrote PowerOff to ControlPort.
	PowerOff
	// GuestReboot: the guest reset the machine through the keyboard controller.
	GuestReboot
	// Halted: every CPU of the guest sleeps with interrupts off, for ever; what
	// Linux does when it is told to power off a machine that has no such switch.
	Halted
	// Panic: the guest's kernel panicked.
	Panic
	// TripleFault: the guest's CPU gave up.
	TripleFault
	// InternalError: KVM or a device model could not go on.
	InternalError
)

func (r Reason) String() string {
	switch r {
	case NotStopped:
		return "not stopped"
	case Killed:
		return "killed"
	case PowerOff:
		return "power off"
	case GuestReboot:
		return "guest reboot"
	case Halted:
		return "halted"
	case Panic:
		return "kernel panic"
	case TripleFault:
		return "triple fault"
	case InternalError:
		return "internal error"
	}
	return fmt.Sprintf("Reason(%d)", int(r))
}

// Exit is how a machine ended.
type Exit struct {
	Reason Reason
	// Detail is for people: the kernel's panic message, KVM's error code.
	Detail string
}

func (e Exit) String() string {
	if e.Detail == "" {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Detail
}

// The control port is the one piece of hardware of our own: the guest writes
// one byte to it. 0x3f0 belonged to floppy controllers, which no guest of ours has.
const (
	ControlPort = 0x3f0
	// BootMark is written by the agent's first instruction (the value is
	// Firecracker's boot timer magic).
	BootMark = 123
	// PowerOffMark asks for the machine to be turned off; all that must be on
	// disk is there.
	PowerOffMark = 124
	// ReadyMark says that the guest is up and that nothing in it depends on what
	// it will be used for: the moment for a snapshot, see Config.HoldWhenReady.
	ReadyMark = 125
)
