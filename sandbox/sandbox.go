package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/vmm"
)

// Status is where a sandbox is in its life.
type Status string

// The statuses of a sandbox. Of the first two there is no Sandbox, only what
// [Get] and [List] tell.
const (
	StatusCreated  Status = "created"  // its first start is being prepared
	StatusStarting Status = "starting" // a later start is being prepared
	StatusRunning  Status = "running"
	StatusPaused   Status = "paused"
	StatusDraining Status = "draining" // being stopped: takes no new commands
	StatusStopped  Status = "stopped"  // by Stop, Kill, Close, its maximum duration, or the guest itself
	StatusCrashed  Status = "crashed"  // ended without anybody asking; Wait says why
)

// Sandbox is a running virtual machine that takes commands. Its methods may be
// called from any goroutine.
type Sandbox struct {
	name    string
	cfg     *config
	record  *record
	machine *vmm.Machine
	agent   *client.Agent
	console *consoleLog
	root    *root
	devices *devices
	timings Timings
	// template is how the guest comes from a snapshot, or makes one.
	template template

	saving  sync.Mutex // of info, and of writing it
	info    *info
	remote  *Handle        // of one that another process owns, see Connect
	control *controlServer // nil if there is none
	gone    bool           // the record is no longer this sandbox's

	mu     sync.Mutex
	idle   sync.Cond // execs reached 0, or the sandbox ended
	status Status
	asked  bool // somebody asked for the end, so it is no crash
	execs  int
	err    error // why it crashed
	expiry *time.Timer
	ended  chan struct{}
}

// Timings tell how long each phase of Create took.
type Timings struct {
	Prepare time.Duration // checking options, claiming the name, opening kernel and images
	Machine time.Duration // building the machine: memory, vCPUs, devices, loading the kernel
	Kernel  time.Duration // from the kernel's first instruction to the agent's
	Agent   time.Duration // from there to the agent's greeting
	Setup   time.Duration // root file system, users, directories, limits
	Total   time.Duration
	// Template is true when the guest was not booted but started from the snapshot
	// of one that had booted; Kernel is 0 then. See [WithoutTemplate].
	Template bool
}

// Name is the sandbox's name.
func (s *Sandbox) Name() string { return s.name }

// Labels are the sandbox's labels; the map is the caller's own.
func (s *Sandbox) Labels() map[string]string { return maps.Clone(s.info.Labels) }

// Timings tell how long each phase of Create took.
func (s *Sandbox) Timings() Timings { return s.timings }

// Status tells where the sandbox is in its life.
func (s *Sandbox) Status() Status {
	if s.remote != nil {
		if now, err := look(s.remote.home, s.name); err == nil {
			return now.status
		}
		return StatusStopped
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Console is the end of what the guest's kernel printed, up to 16 KiB.
func (s *Sandbox) Console() string { return s.console.String() }

// HostMemory is how much of the host's memory backs the guest's, in bytes.
func (s *Sandbox) HostMemory() (uint64, error) {
	if s.remote != nil {
		return 0, s.opErr("memory", errRemote)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status == StatusStopped || s.status == StatusCrashed {
		return 0, s.opErr("memory", ErrNotRunning)
	}
	n, err := s.machine.Resident()
	return n, s.opErr("memory", err)
}

// begin admits a command; finish counts it out.
func (s *Sandbox) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.endErrLocked(); err != nil {
		return err
	}
	if s.status != StatusRunning {
		return fmt.Errorf("%w: it is %s", ErrNotRunning, s.status)
	}
	s.execs++
	return nil
}

func (s *Sandbox) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execs--
	if s.execs == 0 {
		s.idle.Broadcast()
	}
}

// endErr is the error of whatever needs a sandbox that has ended.
func (s *Sandbox) endErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endErrLocked()
}

func (s *Sandbox) endErrLocked() error {
	switch {
	case s.status == StatusCrashed:
		return s.err
	case s.status == StatusStopped:
		return ErrNotRunning
	}
	return nil
}

// Ping returns once the guest's agent has answered. It is no activity.
func (s *Sandbox) Ping(ctx context.Context) error {
	if s.remote != nil {
		return s.opErr("ping", errRemote)
	}
	if err := s.endErr(); err != nil {
		return s.opErr("ping", err)
	}
	return s.opErr("ping", s.lost(s.agent.Ping(ctx)))
}

// lostGrace is how long a broken connection waits for the reason to turn up.
const lostGrace = 2 * time.Second

// lost explains an error of the agent's client: when a connection broke, most
// often the sandbox has ended, and how it ended is the better error.
func (s *Sandbox) lost(err error) error {
	var broken net.Error
	if !errors.Is(err, client.ErrLost) && !errors.As(err, &broken) {
		return err
	}
	if s.remote != nil {
		if !held(s.remote.dir()) {
			return ErrNotRunning
		}
		return err
	}
	t := time.NewTimer(lostGrace)
	defer t.Stop()
	select {
	case <-s.ended:
		return s.endErr()
	case <-t.C:
		return err
	}
}

// Pause stops the guest between two instructions. Commands stand still, new
// ones are refused, and the guest's clocks do not advance for it to see.
func (s *Sandbox) Pause(ctx context.Context) error {
	defer s.note()
	return s.opErr("pause", s.transition(StatusRunning, StatusPaused, func() error { return s.machine.Pause(ctx) }))
}

// Resume undoes Pause.
func (s *Sandbox) Resume() error {
	defer s.note()
	return s.opErr("resume", s.transition(StatusPaused, StatusRunning, s.machine.Resume))
}

// transition moves from one status to another by do; one at a time.
func (s *Sandbox) transition(from, to Status, do func() error) error {
	if s.remote != nil {
		return errRemote
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.endErrLocked(); err != nil {
		return err
	}
	if s.status != from {
		return fmt.Errorf("%w: it is %s", ErrNotRunning, s.status)
	}
	if err := do(); err != nil {
		return err
	}
	s.status = to
	return nil
}

// note writes a changed status into the record, for other processes to see.
func (s *Sandbox) note() {
	if s.remote != nil {
		return
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	status := s.Status()
	if s.gone || s.info.Status == status {
		return
	}
	s.info.Status = status
	if err := s.record.write(s.info); err != nil {
		s.cfg.Logger.Warn("writing the record", "sandbox", s.name, "error", err)
	}
}
