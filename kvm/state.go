package kvm

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// xsaveMin is the size of struct kvm_xsave's fixed part in bytes.
const xsaveMin = 4096

// XSave returns the extended processor state in the layout of the XSAVE instruction: 4096
// bytes, or more on hosts whose KVM_CAP_XSAVE2 says so.
func (c *VCPU) XSave() ([]byte, error) {
	req := reqGetXSave
	if c.xsaveV2 {
		req = reqGetXSave2
	}
	buf := make([]byte, c.xsaveBytes)
	if err := set(&c.h, req, &buf[0]); err != nil {
		return nil, err
	}
	return buf, nil
}

// SetXSave sets the extended processor state. A state from a host with a smaller area is
// accepted; a longer one only if the surplus is zero.
func (c *VCPU) SetXSave(state []byte) error {
	// The kernel reads so many bytes, whatever the caller's slice holds.
	buf := make([]byte, c.xsaveBytes)
	for _, b := range state[copy(buf, state):] {
		if b != 0 {
			return newOpError(reqSetXSave.String(), fmt.Errorf("%d bytes of state for %d: %w", len(state), len(buf), syscall.EINVAL))
		}
	}
	return set(&c.h, reqSetXSave, &buf[0])
}

// XCRsMax is the room in XCRs.
const XCRsMax = 16

// XCR is struct kvm_xcr: an extended control register.
type XCR struct {
	XCR   uint32
	_     uint32
	Value uint64
}

// XCRs is struct kvm_xcrs.
type XCRs struct {
	N     uint32 // how many of XCRs are in use
	Flags uint32
	XCRs  [XCRsMax]XCR
	_     [16]uint64
}

// XCRs returns the extended control registers.
func (c *VCPU) XCRs() (XCRs, error) { return get[XCRs](&c.h, reqGetXCRs) }

// SetXCRs sets the extended control registers.
func (c *VCPU) SetXCRs(x XCRs) error { return set(&c.h, reqSetXCRs, &x) }

// LAPIC is struct kvm_lapic_state: the local APIC's register page.
type LAPIC struct{ Regs [1024]byte }

// Register returns the 32-bit register at an offset of the APIC's page, a multiple of 16.
func (l *LAPIC) Register(offset int) uint32 { return binary.LittleEndian.Uint32(l.Regs[offset:]) }

// SetRegister sets the 32-bit register at an offset of the APIC's page, a multiple of 16.
func (l *LAPIC) SetRegister(offset int, v uint32) {
	binary.LittleEndian.PutUint32(l.Regs[offset:], v)
}

// Offsets of local APIC registers (Intel SDM volume 3, table 11-1).
const (
	LAPICID    = 0x020
	LAPICSVR   = 0x0f0
	LAPICLINT0 = 0x350
	LAPICLINT1 = 0x360
)

// LAPIC returns the state of the in-kernel local APIC.
func (c *VCPU) LAPIC() (LAPIC, error) { return get[LAPIC](&c.h, reqGetLAPIC) }

// SetLAPIC sets the state of the in-kernel local APIC.
func (c *VCPU) SetLAPIC(l LAPIC) error { return set(&c.h, reqSetLAPIC, &l) }

// Flags of VCPUEvents: which fields count when they are set. NMIPending and SIPIVector are
// always filled in by the kernel but heeded only with their flag.
const (
	EventNMIPending  = 1 << 0
	EventSIPIVector  = 1 << 1
	EventShadow      = 1 << 2
	EventSMM         = 1 << 3
	EventPayload     = 1 << 4 // needs CapExceptionPayload
	EventTripleFault = 1 << 5 // needs CapX86TripleFaultEvent
)

// VCPUEvents is struct kvm_vcpu_events: exceptions, interrupts and NMIs that are pending or
// being delivered.
type VCPUEvents struct {
	Exception struct {
		Injected     uint8
		NR           uint8
		HasErrorCode uint8
		Pending      uint8
		ErrorCode    uint32
	}
	Interrupt struct {
		Injected uint8
		NR       uint8
		Soft     uint8
		Shadow   uint8
	}
	NMI struct {
		Injected uint8
		Pending  uint8
		Masked   uint8
		_        uint8
	}
	SIPIVector uint32
	Flags      uint32
	SMI        struct {
		SMM          uint8
		Pending      uint8
		SMMInsideNMI uint8
		LatchedInit  uint8
	}
	TripleFaultPending  uint8
	_                   [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// VCPUEvents returns pending events.
func (c *VCPU) VCPUEvents() (VCPUEvents, error) { return get[VCPUEvents](&c.h, reqGetVCPUEvents) }

// SetVCPUEvents sets pending events.
func (c *VCPU) SetVCPUEvents(e VCPUEvents) error { return set(&c.h, reqSetVCPUEvents, &e) }

// MPState is KVM_MP_STATE_*: whether the processor runs.
type MPState uint32

// The states of an x86 processor.
const (
	MPStateRunnable      MPState = 0
	MPStateUninitialized MPState = 1
	MPStateInitReceived  MPState = 2
	MPStateHalted        MPState = 3
	MPStateSIPIReceived  MPState = 4
	MPStateAPResetHold   MPState = 9
)

// MPState returns the multiprocessing state. It is the first thing to save: reading it makes
// the kernel act on INIT and start-up messages that wait, which changes other state.
func (c *VCPU) MPState() (MPState, error) { return get[MPState](&c.h, reqGetMPState) }

// SetMPState sets the multiprocessing state.
func (c *VCPU) SetMPState(s MPState) error { return set(&c.h, reqSetMPState, &s) }

// KVMClockCtrl tells a guest with kvmclock that it was stopped, so that its soft-lockup
// watchdog stays quiet. It answers EINVAL if the guest has no kvmclock.
func (c *VCPU) KVMClockCtrl() error {
	_, err := c.h.value(reqKVMClockCtrl, 0)
	return err
}

// TSCKHz returns the guest's time stamp counter frequency ([CapGetTSCKHz]).
func (c *VCPU) TSCKHz() (int, error) { return c.h.value(reqGetTSCKHz, 0) }

// SetTSCKHz sets it ([CapTSCControl], unless it is close to the host's own).
func (c *VCPU) SetTSCKHz(khz int) error {
	_, err := c.h.value(reqSetTSCKHz, uintptr(khz))
	return err
}
