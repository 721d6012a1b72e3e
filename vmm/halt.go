package vmm

import (
	"time"

	"github.com/hutchvm/hutch/kvm"
)

// haltInterval is how often the machine looks for a guest that has halted. A
// halted guest causes no exit: KVM keeps its CPUs asleep in the kernel.
const haltInterval = 2 * time.Second

// rflagsIF is the interrupt flag.
const rflagsIF = 1 << 9

// watchHalt ends a machine whose CPUs all sleep with interrupts off. It makes
// every vCPU leave KVM_RUN for a moment to look at itself, see dead.
func (m *Machine) watchHalt() {
	t := time.NewTicker(haltInterval)
	defer t.Stop()
	for {
		select {
		case <-m.done:
			return
		case <-t.C:
		}
		m.mu.Lock()
		all := m.state == Running
		for _, c := range m.vcpus {
			all = all && c.dead.Load()
			if m.state == Running {
				c.Kick()
			}
		}
		m.mu.Unlock()
		if all {
			m.end(Exit{Reason: Halted})
			return
		}
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
