package vmm

import "github.com/hutchvm/hutch/kvm"

// Model-specific registers that firmware would have set before Linux starts.
const (
	msrMiscEnable     = 0x1a0
	msrMTRRDefType    = 0x2ff
	miscFastStrings   = 1 << 0
	mtrrEnable        = 1 << 11
	memoryTypeWriteBk = 6
)

// setBootMSRs makes memory write-back by default, as firmware does.
func setBootMSRs(v *kvm.VCPU) error {
	return v.SetMSRs([]kvm.MSREntry{
		{Index: msrMiscEnable, Value: miscFastStrings},
		{Index: msrMTRRDefType, Value: mtrrEnable | memoryTypeWriteBk},
	})
}

// Local APIC registers: the two local interrupt inputs.
const (
	lapicLVT0      = 0x350
	lapicLVT1      = 0x360
	deliveryMask   = 7 << 8
	deliveryNMI    = 4 << 8
	deliveryExtINT = 7 << 8
)

// setLocalInterrupts wires LINT0 to the legacy interrupt controller and LINT1
// to NMI, as the MP table says.
func setLocalInterrupts(v *kvm.VCPU) error {
	s, err := v.LAPIC()
	if err != nil {
		return err
	}
	s.SetRegister(lapicLVT0, s.Register(lapicLVT0)&^deliveryMask|deliveryExtINT)
	s.SetRegister(lapicLVT1, s.Register(lapicLVT1)&^deliveryMask|deliveryNMI)
	return v.SetLAPIC(s)
}
