// Package client is the host's side of the guest agent: it takes the agent's
// control connection, sets the guest up, runs commands in it and shuts it
// down. It knows connections, not virtual machines: a net.Listener on which
// the agent arrives, and a function that connects to it.
//
// Whatever the guest sends is checked; a guest that breaks the protocol loses
// the connection on which it did so.
package client

import (
	"errors"
)

// Errors of this package, found with errors.Is in an [*Error]. A command that
// cannot start is a *[proto.StartError], a guest that cannot be set up a
// *[proto.SetupError], found with errors.As.
var (
	// ErrClosed: the Agent or Process was closed on this side.
	ErrClosed = errors.New("closed")
	// ErrLost: the guest's end of the connection is gone.
	ErrLost = errors.New("connection to the guest lost")
	// ErrStalled: the agent has left too many requests unanswered.
	ErrStalled = errors.New("agent does not answer")
	// ErrNoStdin: the command was started without stdin, or it was closed.
	ErrNoStdin = errors.New("no stdin")
)

// Error says which operation failed and why.
type Error struct {
	Op  string // "accept", "setup", "exec", "ping", "shutdown", "control", "stdin", "signal", "resize"
	Err error
}

func (e *Error) Error() string { return "agent: " + e.Op + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }
