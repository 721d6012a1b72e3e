package kvm

import (
	"encoding/binary"
	"fmt"
)

// Suberrors of InternalError.
const (
	// InternalEmulation: KVM has no emulation for an instruction that it must emulate.
	InternalEmulation = 1
	// InternalSimulEx: exceptions met that cannot be delivered together.
	InternalSimulEx = 2
	// InternalDeliveryEvent: an exit came while an event was being delivered.
	InternalDeliveryEvent = 3
	// InternalUnexpectedExit: the processor gave an exit reason that KVM does not know.
	InternalUnexpectedExit = 4
)

// internalMost is the length of kvm_run.internal.data.
const internalMost = 16

// InternalError is what ExitInternalError tells.
type InternalError struct {
	// Suberror is Internal* or a number of a newer kernel.
	Suberror uint32
	// N is how many words of Data the kernel filled in.
	N int
	// Data depends on Suberror.
	Data [internalMost]uint64
}

// Instruction returns the bytes of the instruction that KVM could not emulate, where the
// kernel tells them (since 5.14).
func (i *InternalError) Instruction() []byte {
	const hasInstruction = 1 << 0
	if i.Suberror != InternalEmulation || i.N < 3 || i.Data[0]&hasInstruction == 0 {
		return nil
	}
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], i.Data[1])
	binary.LittleEndian.PutUint64(b[8:], i.Data[2])
	return b[1 : 1+min(int(b[0]), 15)]
}

// String describes the error for a log or an error text.
func (i *InternalError) String() string {
	if b := i.Instruction(); b != nil {
		return fmt.Sprintf("suberror %d, instruction % x", i.Suberror, b)
	}
	return fmt.Sprintf("suberror %d, data %#x", i.Suberror, i.Data[:i.N])
}

// InternalError decodes ExitInternalError.
func (e Exit) InternalError() (InternalError, error) {
	u, err := e.union(ExitInternalError)
	if err != nil {
		return InternalError{}, err
	}
	i := InternalError{Suberror: binary.LittleEndian.Uint32(u)}
	i.N = int(min(binary.LittleEndian.Uint32(u[4:]), internalMost))
	for k := range i.Data[:i.N] {
		i.Data[k] = binary.LittleEndian.Uint64(u[8+8*k:])
	}
	return i, nil
}

// Types of SystemEvent.
const (
	SystemEventShutdown = 1
	SystemEventReset    = 2
	SystemEventCrash    = 3
	SystemEventWakeup   = 4
	SystemEventSuspend  = 5
	SystemEventSEVTerm  = 6
)

// SystemEvent is what ExitSystemEvent tells.
type SystemEvent struct {
	// Type is SystemEvent* or a number of a newer kernel.
	Type uint32
	// N is how many words of Data the kernel filled in.
	N    int
	Data [16]uint64
}

// SystemEvent decodes ExitSystemEvent.
func (e Exit) SystemEvent() (SystemEvent, error) {
	u, err := e.union(ExitSystemEvent)
	if err != nil {
		return SystemEvent{}, err
	}
	s := SystemEvent{Type: binary.LittleEndian.Uint32(u)}
	s.N = int(min(binary.LittleEndian.Uint32(u[4:]), uint32(len(s.Data))))
	for k := range s.Data[:s.N] {
		s.Data[k] = binary.LittleEndian.Uint64(u[8+8*k:])
	}
	return s, nil
}

// MSRAccess is an access to a model-specific register that KVM hands over
// ([CapX86UserSpaceMSR]). Answer it with Reply before the next Run.
type MSRAccess struct {
	Index uint32
	Write bool
	// Why is KVM_MSR_EXIT_REASON_*: 1 invalid, 2 unknown, 4 filtered.
	Why uint32
	// Value is what the guest wrote.
	Value uint64
	reply []byte
}

// MSR decodes ExitRDMSR and ExitWRMSR.
func (e Exit) MSR() (MSRAccess, error) {
	write := e.Reason == ExitWRMSR
	if !write && e.Reason != ExitRDMSR || len(e.page) < minRunSize {
		return MSRAccess{}, ErrExit
	}
	u := e.page[offUnion:minRunSize:minRunSize]
	return MSRAccess{
		Index: binary.LittleEndian.Uint32(u[12:]), Write: write,
		Why:   binary.LittleEndian.Uint32(u[8:]),
		Value: binary.LittleEndian.Uint64(u[16:]), reply: u,
	}, nil
}

// Reply sets what the guest reads or, with fault, gives it a general protection fault.
func (m MSRAccess) Reply(value uint64, fault bool) {
	m.reply[0] = 0
	if fault {
		m.reply[0] = 1
	}
	if !m.Write {
		binary.LittleEndian.PutUint64(m.reply[16:], value)
	}
}

// Hypercall is a hypercall that KVM hands over ([CapExitHypercall]).
type Hypercall struct {
	NR       uint64
	Args     [6]uint64
	LongMode bool
	ret      []byte
}

// Hypercall decodes ExitHypercall.
func (e Exit) Hypercall() (Hypercall, error) {
	u, err := e.union(ExitHypercall)
	if err != nil {
		return Hypercall{}, err
	}
	h := Hypercall{NR: binary.LittleEndian.Uint64(u), LongMode: binary.LittleEndian.Uint32(u[64:]) != 0, ret: u[56:64]}
	for k := range h.Args {
		h.Args[k] = binary.LittleEndian.Uint64(u[8+8*k:])
	}
	return h, nil
}

// Reply sets the guest's RAX.
func (h Hypercall) Reply(v uint64) { binary.LittleEndian.PutUint64(h.ret, v) }

// IOAPICEOI decodes ExitIOAPICEOI: the vector of a level-triggered interrupt that ended, with
// a split interrupt controller.
func (e Exit) IOAPICEOI() (vector uint8, err error) {
	u, err := e.union(ExitIOAPICEOI)
	if err != nil {
		return 0, err
	}
	return u[0], nil
}
