package sandbox

import (
	"strconv"
	"syscall"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

// ProcessState tells how a command ended.
type ProcessState struct {
	pid  int
	exit proto.Exited
	done bool
}

func newProcessState(pid int, exit proto.Exited) ProcessState {
	return ProcessState{pid: pid, exit: exit, done: true}
}

// Pid is the command's process ID in the guest.
func (p *ProcessState) Pid() int { return p.pid }

// ExitCode is the exit code, or -1 if the command was ended by a signal or has
// not ended.
func (p *ProcessState) ExitCode() int {
	if p == nil || !p.done || p.exit.Signal != 0 {
		return -1
	}
	return int(p.exit.Code)
}

// Signal is the signal that ended the command, by Linux' number, or 0.
func (p *ProcessState) Signal() syscall.Signal { return syscall.Signal(p.exit.Signal) }

// CoreDump reports whether the command left a core dump.
func (p *ProcessState) CoreDump() bool { return p.exit.Core }

// Exited reports whether the command ended by itself, not by a signal.
func (p *ProcessState) Exited() bool { return p.done && p.exit.Signal == 0 }

// Success reports an exit code of 0.
func (p *ProcessState) Success() bool { return p.Exited() && p.exit.Code == 0 }

// UserTime is the CPU time of the command and the children it waited for.
func (p *ProcessState) UserTime() time.Duration { return time.Duration(p.exit.UserTime) }

// SystemTime is the time that the guest's kernel spent on their behalf.
func (p *ProcessState) SystemTime() time.Duration { return time.Duration(p.exit.SystemTime) }

// MaxRSS is the largest resident set among them, in bytes.
func (p *ProcessState) MaxRSS() uint64 { return p.exit.MaxRSS }

func (p *ProcessState) String() string {
	switch {
	case p == nil || !p.done:
		return "not ended"
	case p.exit.Signal == 0:
		return "exit status " + strconv.Itoa(int(p.exit.Code))
	}
	s := "signal " + strconv.Itoa(int(p.exit.Signal)) + " (" + p.Signal().String() + ")"
	if p.exit.Core {
		s += ", core dumped"
	}
	return s
}
