package vmm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/kvm"
	"github.com/hutchvm/hutch/virtio"
)

// machineState is all of a machine but its memory. KVM's structures are kept as
// bytes in the layout that the kernel has them in.
type machineState struct {
	Memory  uint64
	Clock   uint64 // kvmclock, ns
	PIC     [2]raw
	IOAPIC  raw
	PIT     raw
	VCPUs   []vcpuState
	Devices []deviceState
}

// raw is a KVM structure.
type raw []byte

type vcpuState struct {
	CPUID     raw // a digest: what the guest has seen cannot change under it
	MPState   uint32
	Regs      raw
	SRegs     raw
	XSave     []byte
	XCRs      raw
	DebugRegs raw
	LAPIC     raw
	TSC       uint64
	MSRs      []kvm.MSREntry
	Events    raw
}

// deviceState is a device, its transport's state and its own.
type deviceState struct {
	Name      string // for people
	Transport virtio.State
	Device    json.RawMessage
}

// maxMSRs bounds the registers of one CPU; KVM knows a few hundred.
const maxMSRs = 4096

// check refuses what no machine of ours has. The parts are checked where they
// are put to use.
func (s *machineState) check() error {
	switch {
	case s.Memory < MinMemory || s.Memory > maxMemory || s.Memory%(1<<20) != 0:
		return damaged("%d bytes of memory", s.Memory)
	case len(s.VCPUs) < 1 || len(s.VCPUs) > boot.MaxCPUs:
		return damaged("%d CPUs", len(s.VCPUs))
	case len(s.Devices) < 1 || len(s.Devices) > MaxDevices:
		return damaged("%d devices", len(s.Devices))
	}
	for i := range s.VCPUs {
		if n := len(s.VCPUs[i].MSRs); n > maxMSRs {
			return damaged("%d registers of CPU %d", n, i)
		}
	}
	return nil
}

// pack gives a KVM structure's bytes.
func pack(v any) (raw, error) { return binary.Append(nil, binary.LittleEndian, v) }

// unpack fills a KVM structure; the bytes must be exactly as many.
func unpack[T any](b raw, what string) (v T, err error) {
	if len(b) != binary.Size(v) {
		return v, damaged("%s has %d bytes, not %d", what, len(b), binary.Size(v))
	}
	_, err = binary.Decode(b, binary.LittleEndian, &v)
	return v, err
}

// save collects the state of a paused machine: MP states first, since to read
// them makes KVM act on what waits, and events last.
func (m *Machine) save() (*machineState, error) {
	s := &machineState{Memory: m.mem.Size()}
	indices, err := m.system.MSRIndexList()
	if err != nil {
		return nil, err
	}
	s.VCPUs = make([]vcpuState, len(m.vcpus))
	for i, c := range m.vcpus {
		state, err := c.MPState()
		if err != nil {
			return nil, err
		}
		s.VCPUs[i].MPState = uint32(state)
	}
	for i, c := range m.vcpus {
		if err := s.VCPUs[i].save(c.VCPU, c.cpuid, indices); err != nil {
			return nil, fmt.Errorf("CPU %d: %w", i, err)
		}
	}
	if err := m.saveChips(s); err != nil {
		return nil, err
	}
	for i := range m.slots {
		d, err := m.slots[i].save()
		if err != nil {
			return nil, err
		}
		s.Devices = append(s.Devices, d)
	}
	return s, nil
}

func (m *Machine) saveChips(s *machineState) error {
	for i, id := range []kvm.ChipID{kvm.PICMaster, kvm.PICSlave} {
		if err := keep(&s.PIC[i], func() (kvm.PICState, error) { return m.vm.PIC(id) }); err != nil {
			return err
		}
	}
	clock, err := m.vm.Clock()
	s.Clock = clock.Clock
	return errors.Join(err, keep(&s.IOAPIC, m.vm.IOAPIC), keep(&s.PIT, m.vm.PIT2))
}

// keep stores what get returns.
func keep[T any](into *raw, get func() (T, error)) error {
	v, err := get()
	if err == nil {
		*into, err = pack(v)
	}
	return err
}

func (s *vcpuState) save(c *kvm.VCPU, cpuid raw, indices []uint32) (err error) {
	s.CPUID = cpuid
	err = errors.Join(
		keep(&s.Regs, c.Regs), keep(&s.SRegs, c.SRegs), keep(&s.XCRs, c.XCRs),
		keep(&s.DebugRegs, c.DebugRegs), keep(&s.LAPIC, c.LAPIC))
	if err != nil {
		return err
	}
	if s.XSave, err = c.XSave(); err != nil {
		return err
	}
	if s.MSRs, err = readableMSRs(c, indices); err != nil {
		return err
	}
	if i := slices.IndexFunc(s.MSRs, func(e kvm.MSREntry) bool { return e.Index == msrTSC }); i >= 0 {
		s.TSC = s.MSRs[i].Value
		s.MSRs = slices.Delete(s.MSRs, i, i+1)
	}
	return keep(&s.Events, c.VCPUEvents)
}

// readableMSRs reads those of the registers that this CPU has.
func readableMSRs(c *kvm.VCPU, indices []uint32) ([]kvm.MSREntry, error) {
	var all []kvm.MSREntry
	for len(indices) > 0 {
		got, err := c.MSRs(indices)
		all = append(all, got...)
		indices = indices[len(got):]
		var refused *kvm.MSRError
		switch {
		case errors.As(err, &refused) && len(indices) > 0:
			indices = indices[1:]
		case err != nil:
			return nil, err
		}
	}
	return all, nil
}

// restoreVCPUs makes the CPUs of a snapshot.
func (m *Machine) restoreVCPUs(s *machineState) error {
	cpuid, err := m.system.SupportedCPUID()
	if err != nil {
		return err
	}
	n := len(s.VCPUs)
	for i := range n {
		c, err := m.addVCPU(cpuid, i, n)
		if err != nil {
			return err
		}
		if string(s.VCPUs[i].CPUID) != string(m.vcpus[i].cpuid) {
			return damaged("it is from a host with another processor or KVM")
		}
		if err := s.VCPUs[i].restore(c, i == 0); err != nil {
			return fmt.Errorf("CPU %d: %w", i, err)
		}
	}
	return nil
}

// put hands a saved structure to set.
func put[T any](b raw, what string, set func(T) error) error {
	v, err := unpack[T](b, what)
	if err != nil {
		return err
	}
	return set(v)
}

// restore follows the one order in which no call undoes what an earlier one did.
func (s *vcpuState) restore(c *kvm.VCPU, first bool) error {
	for _, step := range []func() error{
		func() error { return c.SetMPState(kvm.MPState(s.MPState)) },
		func() error { return put(s.Regs, "registers", c.SetRegs) },
		func() error { return put(s.SRegs, "segments", c.SetSRegs) },
		func() error { return c.SetXSave(s.XSave) },
		func() error { return put(s.XCRs, "XCRs", c.SetXCRs) },
		func() error { return put(s.DebugRegs, "debug registers", c.SetDebugRegs) },
		func() error { return put(s.LAPIC, "local APIC", c.SetLAPIC) },
		func() error { return s.setTSC(c, first) },
		func() error { return s.setMSRs(c) },
		func() error { return put(s.Events, "events", c.SetVCPUEvents) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	_ = c.KVMClockCtrl() // EINVAL when the guest has no kvmclock, which is fine
	return nil
}

// Model-specific registers that are more than a value.
const (
	msrTSC         = 0x10
	msrTSCDeadline = 0x6e0
)

// setTSC sets the time stamp counter. KVM takes a value within a second of what
// the machine's other CPUs have (a new machine has about 0) for an attempt to
// make them equal, and ignores it. That is wanted for all CPUs but the first,
// which therefore takes a detour over a value far away.
func (s *vcpuState) setTSC(c *kvm.VCPU, first bool) error {
	if first {
		const far = 1 << 56
		if err := c.SetMSRs([]kvm.MSREntry{{Index: msrTSC, Value: s.TSC ^ far}}); err != nil {
			return err
		}
	}
	return c.SetMSRs([]kvm.MSREntry{{Index: msrTSC, Value: s.TSC}})
}

// setMSRs writes the registers. KVM refuses to write some that it lets us read,
// which does not matter where they have the value already.
func (s *vcpuState) setMSRs(c *kvm.VCPU) error {
	entries := slices.Clone(s.MSRs)
	for i, e := range entries {
		if e.Index == msrTSCDeadline && e.Value == 0 {
			// A deadline that has passed reads as 0, and its interrupt may not
			// have been delivered: let it come again.
			entries[i].Value = s.TSC
		}
	}
	for len(entries) > 0 {
		err := c.SetMSRs(entries)
		var refused *kvm.MSRError
		if !errors.As(err, &refused) {
			return err
		}
		entries = entries[min(refused.Handled, len(entries)-1):]
		now, rerr := c.MSRs([]uint32{entries[0].Index})
		if rerr != nil || now[0] != entries[0] {
			return err
		}
		entries = entries[1:]
	}
	return nil
}

// restoreChips sets what the CPUs share, at last the clock: from then on it runs.
func (m *Machine) restoreChips(s *machineState) error {
	for i, id := range []kvm.ChipID{kvm.PICMaster, kvm.PICSlave} {
		if err := put(s.PIC[i], "PIC", func(p kvm.PICState) error { return m.vm.SetPIC(id, p) }); err != nil {
			return err
		}
	}
	return errors.Join(
		put(s.IOAPIC, "I/O APIC", m.vm.SetIOAPIC),
		put(s.PIT, "timer", m.vm.SetPIT2),
		m.vm.SetClock(kvm.ClockData{Clock: s.Clock}))
}
