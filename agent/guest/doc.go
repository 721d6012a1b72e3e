// Package guest is the agent that runs in every guest: process 1, which puts
// the root together, runs commands for the host and reaps what they leave.
//
// [Main] is the whole program. Its parts:
//
//	boot, vsock       from the kernel's start to the control connection
//	control, root     the host's set-up message, the new root, shutdown
//	server, exec      one connection for each command
//	launch, limits    how a command is started, and what may go wrong
//	output, stdin     a command's streams
//	reap              the one place that waits for processes
//
// The program avoids packages that cost start-up time or size (net, fmt,
// encoding/json, os/user): it is loaded into every guest before anything else
// can happen.
package guest
