package kvm

import (
	"encoding/binary"
	"strconv"
)

// ExitReason is KVM_EXIT_*: why Run returned.
type ExitReason uint32

// The reasons that x86 knows. Others can arrive from newer kernels.
const (
	ExitUnknown       ExitReason = 0
	ExitException     ExitReason = 1
	ExitIO            ExitReason = 2
	ExitHypercall     ExitReason = 3
	ExitDebug         ExitReason = 4
	ExitHLT           ExitReason = 5
	ExitMMIO          ExitReason = 6
	ExitIRQWindowOpen ExitReason = 7
	ExitShutdown      ExitReason = 8
	ExitFailEntry     ExitReason = 9
	ExitIntr          ExitReason = 10
	ExitSetTPR        ExitReason = 11
	ExitTPRAccess     ExitReason = 12
	ExitNMI           ExitReason = 16
	ExitInternalError ExitReason = 17
	ExitSystemEvent   ExitReason = 24
	ExitIOAPICEOI     ExitReason = 26
	ExitHyperV        ExitReason = 27
	ExitRDMSR         ExitReason = 29
	ExitWRMSR         ExitReason = 30
	ExitDirtyRingFull ExitReason = 31
	ExitBusLock       ExitReason = 33
	ExitNotify        ExitReason = 37
)

// String returns the reason in words.
func (r ExitReason) String() string {
	switch r {
	case ExitUnknown:
		return "unknown"
	case ExitException:
		return "exception"
	case ExitIO:
		return "io"
	case ExitHypercall:
		return "hypercall"
	case ExitDebug:
		return "debug"
	case ExitHLT:
		return "hlt"
	case ExitMMIO:
		return "mmio"
	case ExitIRQWindowOpen:
		return "irq window open"
	case ExitShutdown:
		return "shutdown"
	case ExitFailEntry:
		return "fail entry"
	case ExitIntr:
		return "intr"
	case ExitSetTPR:
		return "set tpr"
	case ExitTPRAccess:
		return "tpr access"
	case ExitNMI:
		return "nmi"
	case ExitInternalError:
		return "internal error"
	case ExitSystemEvent:
		return "system event"
	case ExitIOAPICEOI:
		return "ioapic eoi"
	case ExitHyperV:
		return "hyperv"
	case ExitRDMSR:
		return "rdmsr"
	case ExitWRMSR:
		return "wrmsr"
	case ExitDirtyRingFull:
		return "dirty ring full"
	case ExitBusLock:
		return "bus lock"
	case ExitNotify:
		return "notify"
	}
	return "exit reason " + strconv.FormatUint(uint64(r), 10)
}

// Offsets in struct kvm_run. The members of the union start at offUnion.
const (
	offExitReason = 8
	offReady      = 12
	offIFFlag     = 13
	offFlags      = 14
	offUnion      = 32
	unionSize     = 256
	// minRunSize is what the fixed part of kvm_run takes up to the union's end.
	minRunSize = offUnion + unionSize
)

// Exit is one return of Run. It is a view of the area shared with the kernel, made without
// allocation, and valid until the next Run or Close of its vCPU. Its methods decode the data
// that goes with the reason and answer [ErrExit] for another reason or implausible data.
type Exit struct {
	Reason ExitReason
	// Flags are KVM_RUN_X86_*: bit 0 says that the vCPU is in system management mode.
	Flags uint16
	page  []byte
}

func exitOf(page []byte) Exit {
	return Exit{
		Reason: ExitReason(binary.LittleEndian.Uint32(page[offExitReason:])),
		Flags:  binary.LittleEndian.Uint16(page[offFlags:]),
		page:   page,
	}
}

// union returns the reason's own data.
func (e Exit) union(want ExitReason) ([]byte, error) {
	if e.Reason != want || len(e.page) < minRunSize {
		return nil, ErrExit
	}
	return e.page[offUnion:minRunSize:minRunSize], nil
}

// IOAccess is a port access.
type IOAccess struct {
	Port uint16
	// Write is true for OUT and OUTS, false for IN and INS.
	Write bool
	// Size is the width of one access in bytes: 1, 2 or 4.
	Size int
	// Count is the number of accesses, more than 1 for string instructions only.
	Count int
	// Data is the guest's memory order, Size*Count bytes: what the guest wrote, or where to
	// put what it reads, before the next Run.
	Data []byte
}

// IO decodes ExitIO.
func (e Exit) IO() (IOAccess, error) {
	u, err := e.union(ExitIO)
	if err != nil {
		return IOAccess{}, err
	}
	size, count := uint64(u[1]), uint64(binary.LittleEndian.Uint32(u[4:]))
	offset := binary.LittleEndian.Uint64(u[8:])
	total := uint64(len(e.page))
	// size*count cannot overflow: 8 bits by 32 bits.
	if (size != 1 && size != 2 && size != 4) || u[0] > 1 ||
		offset < minRunSize || offset > total || size*count > total-offset {
		return IOAccess{}, ErrExit
	}
	end := offset + size*count
	return IOAccess{
		Port: binary.LittleEndian.Uint16(u[2:]), Write: u[0] == 1,
		Size: int(size), Count: int(count), Data: e.page[offset:end:end],
	}, nil
}

// MMIOAccess is an access to guest-physical memory that no slot backs.
type MMIOAccess struct {
	// Addr is the guest-physical address. An access that straddles a page, or is wider than
	// 8 bytes, arrives as several exits.
	Addr  uint64
	Write bool
	// Data is what the guest wrote, or where to put what it reads, before the next Run: 1 to
	// 8 bytes, little-endian.
	Data []byte
}

// MMIO decodes ExitMMIO.
func (e Exit) MMIO() (MMIOAccess, error) {
	u, err := e.union(ExitMMIO)
	if err != nil {
		return MMIOAccess{}, err
	}
	n := binary.LittleEndian.Uint32(u[16:])
	if n < 1 || n > 8 {
		return MMIOAccess{}, ErrExit
	}
	return MMIOAccess{Addr: binary.LittleEndian.Uint64(u), Write: u[20] != 0, Data: u[8 : 8+n : 8+n]}, nil
}

// FailEntry decodes ExitFailEntry: the processor's reason for refusing the guest's state, and
// the host CPU on which it did.
func (e Exit) FailEntry() (hardwareReason uint64, cpu uint32, err error) {
	u, err := e.union(ExitFailEntry)
	if err != nil {
		return 0, 0, err
	}
	return binary.LittleEndian.Uint64(u), binary.LittleEndian.Uint32(u[8:]), nil
}

// HardwareReason decodes ExitUnknown: the processor's own exit code.
func (e Exit) HardwareReason() (uint64, error) {
	u, err := e.union(ExitUnknown)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(u), nil
}

// Exception decodes ExitException.
func (e Exit) Exception() (vector, errorCode uint32, err error) {
	u, err := e.union(ExitException)
	if err != nil {
		return 0, 0, err
	}
	return binary.LittleEndian.Uint32(u), binary.LittleEndian.Uint32(u[4:]), nil
}

// DebugInfo is struct kvm_debug_exit_arch.
type DebugInfo struct {
	Exception uint32 // 1 is #DB, 3 is #BP
	PC        uint64 // linear address
	DR6, DR7  uint64
}

// Debug decodes ExitDebug.
func (e Exit) Debug() (DebugInfo, error) {
	u, err := e.union(ExitDebug)
	if err != nil {
		return DebugInfo{}, err
	}
	return DebugInfo{
		Exception: binary.LittleEndian.Uint32(u), PC: binary.LittleEndian.Uint64(u[8:]),
		DR6: binary.LittleEndian.Uint64(u[16:]), DR7: binary.LittleEndian.Uint64(u[24:]),
	}, nil
}

// ReadyForInterrupt says whether [VCPU.Interrupt] may be called now, on machines without an
// in-kernel local APIC.
func (e Exit) ReadyForInterrupt() bool { return len(e.page) > offReady && e.page[offReady] != 0 }

// InterruptsEnabled returns the guest's interrupt flag.
func (e Exit) InterruptsEnabled() bool { return len(e.page) > offIFFlag && e.page[offIFFlag] != 0 }
