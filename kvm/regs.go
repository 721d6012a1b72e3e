package kvm

// Regs is struct kvm_regs: the general registers.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64
}

// Regs returns the general registers.
func (c *VCPU) Regs() (Regs, error) { return get[Regs](&c.h, reqGetRegs) }

// SetRegs sets the general registers. RFLAGS needs its bit 1 set.
func (c *VCPU) SetRegs(r Regs) error { return set(&c.h, reqSetRegs, &r) }

// Segment is struct kvm_segment: a segment register with its hidden part.
type Segment struct {
	Base     uint64
	Limit    uint32 // in bytes, the granularity already applied
	Selector uint16
	Type     uint8
	Present  uint8
	DPL      uint8
	DB       uint8
	S        uint8
	L        uint8
	G        uint8
	AVL      uint8
	Unusable uint8
	_        uint8
}

// DTable is struct kvm_dtable: the GDT or IDT register.
type DTable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// SRegs is struct kvm_sregs: the segment and control registers.
type SRegs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                DTable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	// InterruptBitmap has the bit of an external interrupt that was queued but not delivered.
	InterruptBitmap [4]uint64
}

// SRegs returns the segment and control registers.
func (c *VCPU) SRegs() (SRegs, error) { return get[SRegs](&c.h, reqGetSRegs) }

// SetSRegs sets the segment and control registers.
func (c *VCPU) SetSRegs(s SRegs) error { return set(&c.h, reqSetSRegs, &s) }

// SRegs2PDPTRsValid is a flag of SRegs2: PDPTRs counts.
const SRegs2PDPTRsValid = 1 << 0

// SRegs2 is struct kvm_sregs2: SRegs without queued interrupts but with the page directory
// pointers that 32-bit PAE paging holds in the processor.
type SRegs2 struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                DTable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	Flags                   uint64
	PDPTRs                  [4]uint64
}

// SRegs2 is like [VCPU.SRegs] ([CapSRegs2]).
func (c *VCPU) SRegs2() (SRegs2, error) { return get[SRegs2](&c.h, reqGetSRegs2) }

// SetSRegs2 is like [VCPU.SetSRegs] ([CapSRegs2]).
func (c *VCPU) SetSRegs2(s SRegs2) error { return set(&c.h, reqSetSRegs2, &s) }

// FPU is struct kvm_fpu: the x87 and SSE state, in the layout of FXSAVE.
type FPU struct {
	FPR        [8][16]byte
	FCW        uint16
	FSW        uint16
	FTWX       uint8 // abridged tag word
	_          uint8
	LastOpcode uint16
	LastIP     uint64
	LastDP     uint64
	XMM        [16][16]byte
	MXCSR      uint32
	_          uint32
}

// FPU returns the x87 and SSE state, without MXCSR, which the kernel leaves 0.
func (c *VCPU) FPU() (FPU, error) { return get[FPU](&c.h, reqGetFPU) }

// SetFPU sets the x87 and SSE registers, for a vCPU's start. To move a state use
// [VCPU.SetXSave]: the kernel heeds neither MXCSR nor which parts are in use here.
func (c *VCPU) SetFPU(f FPU) error { return set(&c.h, reqSetFPU, &f) }

// DebugRegs is struct kvm_debugregs.
type DebugRegs struct {
	DB    [4]uint64
	DR6   uint64
	DR7   uint64
	Flags uint64
	_     [9]uint64
}

// DebugRegs returns the guest's debug registers.
func (c *VCPU) DebugRegs() (DebugRegs, error) { return get[DebugRegs](&c.h, reqGetDebugRegs) }

// SetDebugRegs sets the guest's debug registers.
func (c *VCPU) SetDebugRegs(d DebugRegs) error { return set(&c.h, reqSetDebugRegs, &d) }
