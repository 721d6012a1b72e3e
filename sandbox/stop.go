package sandbox

import (
	"context"
	"errors"
	"time"

	"github.com/hutchvm/hutch/vmm"
)

const (
	// stopTimeout is how long Stop waits for the guest before it is killed.
	stopTimeout = 10 * time.Second
	// stopGrace is how much of it processes have between SIGTERM and SIGKILL.
	stopGrace = 5 * time.Second
	// expiryTimeout is the same for a sandbox whose maximum duration is over.
	expiryTimeout = 2 * time.Second
	expiryGrace   = time.Second
	// lostTimeout is how long a machine whose agent has gone may take to say why.
	lostTimeout = 2 * time.Second
)

// Stop ends the sandbox in order: processes get SIGTERM and 5 s later SIGKILL,
// data is written to the disks, the machine is turned off. A guest that has not
// done so within 10 s, or when ctx ends, is killed. Stop returns when the
// sandbox has ended; stopping one that has ended is no error.
func (s *Sandbox) Stop(ctx context.Context) error {
	return s.opErr("stop", s.stop(ctx, stopTimeout, stopGrace))
}

func (s *Sandbox) stop(ctx context.Context, timeout, grace time.Duration) error {
	if s.remote != nil {
		return s.remote.stop(ctx, timeout)
	}
	s.mu.Lock()
	paused := s.status == StatusPaused
	if s.status == StatusRunning || paused {
		s.status = StatusDraining
	}
	s.asked = true
	s.mu.Unlock()
	s.note()

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if paused {
		if err := s.machine.Resume(); err != nil && !errors.Is(err, vmm.ErrState) {
			return err
		}
	}
	if _, err := s.agent.Shutdown(ctx, grace); err != nil {
		s.machine.Stop() // hung, or gone already
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		s.machine.Stop()
		<-s.ended
	}
	return nil
}

// Drain waits until the commands that run have ended, refuses new ones
// meanwhile, and then stops the sandbox. When ctx ends first it is stopped
// with them.
func (s *Sandbox) Drain(ctx context.Context) error {
	if s.remote != nil {
		return s.opErr("drain", errRemote)
	}
	s.mu.Lock()
	if s.status == StatusRunning {
		s.status = StatusDraining
	}
	s.mu.Unlock()
	s.note()
	s.mu.Lock()
	wake := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.idle.Broadcast()
		s.mu.Unlock()
	})
	for s.status == StatusDraining && s.execs > 0 && ctx.Err() == nil {
		s.idle.Wait()
	}
	s.mu.Unlock()
	wake()
	return s.opErr("drain", s.stop(context.WithoutCancel(ctx), stopTimeout, stopGrace))
}

// Kill ends the sandbox at once, as pulling the plug would, and returns when it
// has ended. Killing one that has ended is no error.
func (s *Sandbox) Kill() error {
	if s.remote != nil {
		return s.opErr("kill", s.remote.stop(context.Background(), 0))
	}
	s.mu.Lock()
	s.asked = true
	s.mu.Unlock()
	s.machine.Stop()
	<-s.ended
	return nil
}

// Wait returns when the sandbox has ended: nil if it was stopped, a
// *[CrashError] if it crashed, the context's cause if ctx ended first.
func (s *Sandbox) Wait(ctx context.Context) error {
	if s.remote != nil {
		return s.opErr("wait", s.remote.waitRemote(ctx))
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		return s.opErr("wait", context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opErr("wait", s.err)
}

// Close ends the sandbox and gives back all that it holds: memory, threads,
// descriptors. One that is ephemeral is ended at once, as by Kill, for nothing
// that the guest wrote would outlive it; any other is stopped in order, as by
// Stop, and takes as long. It is idempotent.
func (s *Sandbox) Close() error {
	if s.remote != nil {
		return nil // it is another's
	}
	if s.cfg.Ephemeral {
		return s.Kill()
	}
	return s.opErr("close", s.stop(context.Background(), stopTimeout, stopGrace))
}

// watch sees the sandbox to its end, whatever that is, and cleans up after it.
// It is the only place where that happens.
func (s *Sandbox) watch() {
	select {
	case <-s.machine.Done():
	case <-s.agent.Done():
		// The agent takes its machine down when it loses the control
		// connection; a kernel that panicked says so. One that does neither
		// is ended here.
		t := time.NewTimer(lostTimeout)
		select {
		case <-s.machine.Done():
		case <-t.C:
			s.machine.Stop()
			<-s.machine.Done()
		}
		t.Stop()
	}
	exit := s.machine.Exit()

	s.mu.Lock()
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.mu.Unlock()
	s.agent.Close()
	err := errors.Join(s.machine.Close(), s.devices.close(), s.root.close())

	s.mu.Lock()
	status, crash := StatusStopped, (*CrashError)(nil)
	if !s.asked && !byGuest(exit.Reason) {
		status, crash = StatusCrashed, &CrashError{Reason: crashReason(exit), Console: s.console.String()}
	}
	s.mu.Unlock()
	s.control.close()
	if err = errors.Join(err, s.letGo(status, crash)); err != nil {
		s.cfg.Logger.Error("cleaning up", "sandbox", s.name, "error", err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
	if crash != nil {
		s.err = crash
	}
	s.idle.Broadcast()
	close(s.ended)
}

// letGo ends this process's hold on the record: it goes, or says how the
// sandbox ended.
func (s *Sandbox) letGo(status Status, crash *CrashError) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.gone = true
	s.info.Status, s.info.Ended, s.info.Ports = status, time.Now().UTC(), nil
	if crash != nil {
		s.info.Reason = crash.Reason
	}
	if s.cfg.Ephemeral {
		return s.record.remove()
	}
	return errors.Join(s.record.write(s.info), s.record.close())
}

// byGuest tells whether the guest ended in order: reboot and power off are a
// sandbox's own business.
func byGuest(r vmm.Reason) bool {
	return r == vmm.PowerOff || r == vmm.GuestReboot || r == vmm.Halted
}

func crashReason(exit vmm.Exit) string {
	if exit.Reason == vmm.Killed {
		return "the guest's agent is gone"
	}
	return exit.String()
}
