package vmm

import (
	"time"

	"github.com/hutchvm/hutch/kvm"
)

// The machine looks for a guest that has halted: a halted guest causes no exit,
// KVM keeps its CPUs asleep in the kernel. It looks when no vCPU has come out of
// KVM for haltMin, and then ever more rarely, so that an idle guest is left alone.
const (
	haltMin = 2 * time.Second
	haltMax = time.Minute
)

// rflagsIF is the interrupt flag.
const rflagsIF = 1 << 9

// watchHalt ends a machine whose CPUs all sleep with interrupts off. It makes
// every vCPU leave KVM_RUN for a moment to look at itself, see dead.
func (m *Machine) watchHalt() {
	wait, seen := haltMin, uint64(0)
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-m.done:
			return
		case <-t.C:
		}
		m.mu.Lock()
		exits, dead := uint64(0), m.state == Running
		for _, c := range m.vcpus {
			exits += c.exits.Load()
			dead = dead && c.dead.Load()
		}
		switch quiet := exits == seen; {
		case !quiet:
			wait = haltMin
		case dead:
			m.mu.Unlock()
			m.end(Exit{Reason: Halted})
			return
		case m.state == Running:
			for _, c := range m.vcpus {
				c.Kick()
			}
			wait = min(wait*2, haltMax)
		}
		m.mu.Unlock()
		seen = exits
		t.Reset(wait)
	}
}

// looksDead tells whether no interrupt can ever wake this CPU: it halted with
// interrupts off, or it was never started. It runs on the vCPU's own thread.
func (c *vcpu) looksDead() bool {
	state, err := c.MPState()
	if err != nil {
		return false
	}
	switch state {
	case kvm.MPStateUninitialized:
		return true
	case kvm.MPStateHalted:
		regs, err := c.Regs()
		return err == nil && regs.RFLAGS&rflagsIF == 0
	}
	return false
}
