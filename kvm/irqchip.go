package kvm

// ChipID names an in-kernel interrupt controller.
type ChipID uint32

// The interrupt controllers of [VM.CreateIRQChip].
const (
	PICMaster ChipID = 0
	PICSlave  ChipID = 1
	IOAPIC    ChipID = 2
)

// IOAPICPins is the number of inputs of the in-kernel IOAPIC.
const IOAPICPins = 24

// CreateIRQChip makes two PICs, an IOAPIC and a local APIC per vCPU in the kernel. It must
// precede the first vCPU.
func (v *VM) CreateIRQChip() error {
	_, err := v.h.value(reqCreateIRQChip, 0)
	return err
}

// PICState is struct kvm_pic_state: one 8259A.
type PICState struct {
	LastIRR               uint8 // for edge detection
	IRR                   uint8
	IMR                   uint8
	ISR                   uint8
	PriorityAdd           uint8
	IRQBase               uint8
	ReadRegSelect         uint8
	Poll                  uint8
	SpecialMask           uint8
	InitState             uint8
	AutoEOI               uint8
	RotateOnAutoEOI       uint8
	SpecialFullyNestedMod uint8
	Init4                 uint8
	ELCR                  uint8
	ELCRMask              uint8
}

// IOAPICState is struct kvm_ioapic_state.
type IOAPICState struct {
	BaseAddress uint64
	IORegSel    uint32
	ID          uint32
	IRR         uint32
	_           uint32
	// RedirTable holds one redirection entry per pin, in the hardware's format.
	RedirTable [IOAPICPins]uint64
}

// chipState is the space that struct kvm_irqchip has for any chip's state, in bytes.
const chipState = 512

// picChip and ioapicChip are struct kvm_irqchip with the two members of its union.
type picChip struct {
	ID  uint32
	_   uint32
	PIC PICState
	_   [chipState - 16]byte
}

type ioapicChip struct {
	ID     uint32
	_      uint32
	IOAPIC IOAPICState
	_      [chipState - 216]byte
}

// PIC returns the state of PICMaster or PICSlave.
func (v *VM) PIC(id ChipID) (PICState, error) {
	c := picChip{ID: uint32(id)}
	err := set(&v.h, reqGetIRQChip, &c)
	return c.PIC, err
}

// SetPIC sets the state of PICMaster or PICSlave.
func (v *VM) SetPIC(id ChipID, s PICState) error {
	return set(&v.h, reqSetIRQChip, &picChip{ID: uint32(id), PIC: s})
}

// IOAPIC returns the state of the in-kernel IOAPIC.
func (v *VM) IOAPIC() (IOAPICState, error) {
	c := ioapicChip{ID: uint32(IOAPIC)}
	err := set(&v.h, reqGetIRQChip, &c)
	return c.IOAPIC, err
}

// SetIOAPIC sets the state of the in-kernel IOAPIC.
func (v *VM) SetIOAPIC(s IOAPICState) error {
	return set(&v.h, reqSetIRQChip, &ioapicChip{ID: uint32(IOAPIC), IOAPIC: s})
}

// PITSpeakerDummy is a flag of PITConfig: the kernel also answers the speaker port 0x61.
const PITSpeakerDummy = 1 << 0

// PITConfig is struct kvm_pit_config.
type PITConfig struct {
	Flags uint32
	_     [15]uint32
}

// CreatePIT2 makes an i8254 timer in the kernel, after [VM.CreateIRQChip].
func (v *VM) CreatePIT2(c PITConfig) error { return set(&v.h, reqCreatePIT2, &c) }

// PITChannel is struct kvm_pit_channel_state.
type PITChannel struct {
	Count         uint32 // up to 65536
	LatchedCount  uint16
	CountLatched  uint8
	StatusLatched uint8
	Status        uint8
	ReadState     uint8
	WriteState    uint8
	WriteLatch    uint8
	RWMode        uint8
	Mode          uint8
	BCD           uint8
	Gate          uint8
	CountLoadTime int64 // host nanoseconds
}

// PITState is struct kvm_pit_state2.
type PITState struct {
	Channels [3]PITChannel
	Flags    uint32
	_        [9]uint32
}

// PIT2 returns the timer's state.
func (v *VM) PIT2() (PITState, error) { return get[PITState](&v.h, reqGetPIT2) }

// SetPIT2 sets the timer's state; counting starts anew from the channels' counts.
func (v *VM) SetPIT2(s PITState) error { return set(&v.h, reqSetPIT2, &s) }

// reinjectControl is struct kvm_reinject_control.
type reinjectControl struct {
	PITReinject uint8
	_           [31]byte
}

// SetPITReinject says whether timer interrupts that the guest missed are delivered late (the
// kernel's default) or dropped.
func (v *VM) SetPITReinject(on bool) error {
	var c reinjectControl
	if on {
		c.PITReinject = 1
	}
	return set(&v.h, reqReinjectControl, &c)
}
