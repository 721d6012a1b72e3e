package vmm

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/kvm"
)

type vcpu struct {
	*kvm.VCPU
	id int
	// cpuid is a digest of what the guest sees.
	cpuid raw
	// For watchHalt: whether the CPU looked dead when it last looked, and how
	// often it came out of KVM for another reason than to look.
	dead  atomic.Bool
	exits atomic.Uint64
}

func (m *Machine) createVCPUs(n int, k boot.Kernel) error {
	cpuid, err := m.system.SupportedCPUID()
	if err != nil {
		return err
	}
	for i := range n {
		v, err := m.addVCPU(cpuid, i, n)
		if err != nil {
			return err
		}
		if err := setBootMSRs(v); err != nil {
			return err
		}
		if err := setLocalInterrupts(v); err != nil {
			return err
		}
		if i > 0 {
			continue // waits for the boot CPU's start-up interrupt
		}
		sregs, err := v.SRegs()
		if err != nil {
			return err
		}
		regs, sregs := boot.EntryState(k, sregs)
		if err := v.SetSRegs(sregs); err != nil {
			return err
		}
		if err := v.SetRegs(regs); err != nil {
			return err
		}
	}
	return nil
}

// addVCPU makes virtual CPU i of n, of what the host supports.
func (m *Machine) addVCPU(supported []kvm.CPUIDEntry, i, n int) (*kvm.VCPU, error) {
	v, err := m.vm.CreateVCPU(i)
	if err != nil {
		return nil, err
	}
	seen := guestCPUID(supported, i, n)
	m.vcpus = append(m.vcpus, &vcpu{VCPU: v, id: i, cpuid: cpuidDigest(seen)})
	return v, v.SetCPUID(seen)
}

// runVCPU is the life of one virtual CPU.
func (m *Machine) runVCPU(c *vcpu) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetPanicOnFault(true)
	defer takeProcessor()()
	defer nameThread(fmt.Sprintf("hutch-vcpu%d", c.id))()
	defer m.vcpuEnded()
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("vcpu panicked", "vcpu", c.id, "panic", p, "stack", string(debug.Stack()))
			m.end(Exit{Reason: InternalError, Detail: fmt.Sprint(p)})
		}
	}()
	for {
		exit, err := c.Run()
		if err != nil {
			m.end(Exit{Reason: InternalError, Detail: err.Error()})
			return
		}
		if !m.handle(c, exit) {
			return
		}
	}
}

// vcpuEnded counts a vCPU goroutine out.
func (m *Machine) vcpuEnded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live--
	m.changed.Broadcast()
	if m.live == 0 && m.state == Stopped {
		close(m.done)
	}
}

// park waits while the machine is paused; it reports whether the machine goes on.
// vCPUs park only on ExitIntr: by then KVM has completed the last access.
func (m *Machine) park() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == Paused {
		m.parked++
		m.changed.Broadcast()
		for m.state == Paused {
			m.changed.Wait()
		}
		m.parked--
	}
	return m.state == Running
}

// handle serves one exit; it reports whether the vCPU goes on.
func (m *Machine) handle(c *vcpu, e kvm.Exit) bool {
	if e.Reason != kvm.ExitIntr {
		c.exits.Add(1)
	}
	switch e.Reason {
	case kvm.ExitIO:
		io, err := e.IO()
		if err != nil {
			return m.internal(e, err)
		}
		for data := io.Data; len(data) > 0; data = data[io.Size:] {
			if !io.Write {
				portRead(io.Port, data[:io.Size])
			} else if !m.portWrite(io.Port, data[:io.Size]) {
				return false
			}
		}
	case kvm.ExitMMIO:
		a, err := e.MMIO()
		switch {
		case err != nil:
			return m.internal(e, err)
		case a.Write:
			m.mmioWrite(a.Addr, a.Data)
		default:
			m.mmioRead(a.Addr, a.Data)
		}
	case kvm.ExitIntr:
		c.dead.Store(c.looksDead())
		return m.park()
	case kvm.ExitShutdown:
		m.end(m.panicOr(TripleFault))
		return false
	default:
		return m.internal(e, nil)
	}
	return true
}

// internal ends the machine on an exit that a guest of ours never causes.
func (m *Machine) internal(e kvm.Exit, err error) bool {
	detail := "KVM exit: " + e.Reason.String()
	if err != nil {
		detail += ": " + err.Error()
	}
	switch e.Reason {
	case kvm.ExitFailEntry:
		if reason, cpu, err := e.FailEntry(); err == nil {
			detail += fmt.Sprintf(": hardware reason %#x on CPU %d", reason, cpu)
		}
	case kvm.ExitInternalError:
		if i, err := e.InternalError(); err == nil {
			detail += fmt.Sprintf(": suberror %d, data %#x", i.Suberror, i.Data)
		}
	}
	m.end(Exit{Reason: InternalError, Detail: detail})
	return false
}
