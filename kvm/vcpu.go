package kvm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// VCPU is one virtual processor. See [VCPU.Run] for the thread it wants.
type VCPU struct {
	h  handle
	id int

	xsaveBytes int
	xsaveV2    bool

	// page is the kvm_run area shared with the kernel, and control its first word.
	page    []byte
	control *uint32

	// mu guards what follows and the life of page. Kick holds it while it signals, so that tid
	// cannot have ended meanwhile; Run holds it just before and just after the ioctl.
	mu     sync.Mutex
	tid    int // the thread that is inside KVM_RUN, or 0
	closed bool
}

// immediateExit is kvm_run.immediate_exit, the second byte, as part of the first
// little-endian word; request_interrupt_window is the first byte.
const (
	requestInterruptWindow = 0x00_01
	immediateExit          = 0x01_00
)

// CreateVCPU makes a virtual processor with the given APIC ID, from 0, below what
// [CapMaxVCPUID] reports.
func (v *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := v.h.value(reqCreateVCPU, uintptr(id))
	if err != nil {
		return nil, err
	}
	size, v2, err := v.xsaveSize()
	if err != nil {
		return nil, errors.Join(err, newOpError("close vcpu", sysClose(fd)))
	}
	page, err := sysMapRun(fd, v.runSize)
	if err != nil {
		return nil, errors.Join(newOpError("mmap kvm_run", err), newOpError("close vcpu", sysClose(fd)))
	}
	return &VCPU{
		h: handle{fd: fd}, id: id, xsaveBytes: size, xsaveV2: v2, page: page,
		// SAFETY: a mapping is page-aligned, at least minRunSize long, and stays until Close,
		// after which control is not used (see closed).
		control: (*uint32)(unsafe.Pointer(&page[0])),
	}, nil
}

// ID returns the number that the vCPU was made with.
func (c *VCPU) ID() int { return c.id }

// Close unmaps the exit area and drops the vCPU. It waits for nothing: it answers
// [ErrRunning], and leaves all as it is, while a Run is under way (Kick it, and let its
// goroutine end first). Data slices of exits must not be touched afterwards.
func (c *VCPU) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	if c.tid != 0 {
		return newOpError("close vcpu", ErrRunning)
	}
	c.closed = true
	err := newOpError("munmap kvm_run", sysUnmap(c.page))
	c.page, c.control = nil, nil
	return errors.Join(err, c.h.close("close vcpu"))
}

// EnableCap turns on a capability of the vCPU.
func (c *VCPU) EnableCap(cp Cap, args ...uint64) error { return enable(&c.h, cp, args) }

// NMI queues a non-maskable interrupt.
func (c *VCPU) NMI() error {
	_, err := c.h.value(reqNMI, 0)
	return err
}

// Interrupt queues an external interrupt vector, on machines without an in-kernel local APIC.
// The guest must be able to take it: see [Exit.ReadyForInterrupt].
func (c *VCPU) Interrupt(vector uint8) error {
	n := uint32(vector)
	return set(&c.h, reqInterrupt, &n)
}

// RequestInterruptWindow makes Run return with [ExitIRQWindowOpen] as soon as the guest can
// take an external interrupt, on machines without an in-kernel local APIC.
func (c *VCPU) RequestInterruptWindow(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case on:
		atomic.OrUint32(c.control, requestInterruptWindow)
	default:
		atomic.AndUint32(c.control, ^uint32(requestInterruptWindow))
	}
}

// SetSignalMask sets the signals that are blocked while KVM_RUN lasts, bit n-1 for signal n.
// [VCPU.Kick] and the Go runtime need SIGURG to stay unblocked; a vCPU needs no mask at all
// unless it says so itself.
func (c *VCPU) SetSignalMask(blocked uint64) error {
	// struct kvm_signal_mask: the length of the kernel's sigset_t, then the set.
	buf := [3]uint32{8, uint32(blocked), uint32(blocked >> 32)}
	return set(&c.h, reqSetSignalMask, &buf[0])
}

// ClearSignalMask undoes [VCPU.SetSignalMask].
func (c *VCPU) ClearSignalMask() error {
	_, err := c.h.value(reqSetSignalMask, 0)
	return err
}

// translation is struct kvm_translation.
type translation struct {
	LinearAddress   uint64
	PhysicalAddress uint64
	Valid           uint8
	Writeable       uint8
	Usermode        uint8
	_               [5]uint8
}

// Translate walks the vCPU's current page tables and returns the guest-physical address of a
// guest-virtual one, with ok false where nothing is mapped.
func (c *VCPU) Translate(virt uint64) (phys uint64, ok bool, err error) {
	t := translation{LinearAddress: virt}
	if err := set(&c.h, reqTranslate, &t); err != nil {
		return 0, false, err
	}
	return t.PhysicalAddress, t.Valid != 0, nil
}

// Flags of GuestDebug.Control.
const (
	GuestDebugEnable     = 1 << 0
	GuestDebugSingleStep = 1 << 1
	GuestDebugUseSWBP    = 1 << 16
	GuestDebugUseHWBP    = 1 << 17
	GuestDebugInjectDB   = 1 << 18
	GuestDebugInjectBP   = 1 << 19
	GuestDebugBlockIRQ   = 1 << 20
)

// GuestDebug is struct kvm_guest_debug.
type GuestDebug struct {
	Control uint32
	_       uint32
	// DebugReg holds the debug registers that apply with GuestDebugUseHWBP.
	DebugReg [8]uint64
}

// SetGuestDebug turns on single stepping or breakpoints, which end Run with [ExitDebug].
func (c *VCPU) SetGuestDebug(d GuestDebug) error { return set(&c.h, reqSetGuestDebug, &d) }

// xsaveSize asks how large a vCPU's extended state is on this host, and whether
// KVM_GET_XSAVE2 is there to read it. The size is settled once a vCPU exists.
func (v *VM) xsaveSize() (size int, v2 bool, err error) {
	n, err := v.CheckExtension(CapXSave2)
	switch {
	case err != nil:
		return 0, false, err
	case n == 0:
		return xsaveMin, false, nil
	case n < xsaveMin:
		return 0, false, newOpError(reqCheckExtension.String(), fmt.Errorf("KVM_CAP_XSAVE2 says %d bytes", n))
	}
	return n, true, nil
}
