package kvm

// irqLevel is struct kvm_irq_level.
type irqLevel struct {
	IRQ   uint32
	Level uint32
}

// IRQLine drives a line of the in-kernel interrupt controllers. A device that wants an edge
// raises and lowers it.
func (v *VM) IRQLine(gsi uint32, high bool) error {
	l := irqLevel{IRQ: gsi}
	if high {
		l.Level = 1
	}
	return set(&v.h, reqIRQLine, &l)
}

// Flags of IRQFD.
const (
	IRQFDDeassign = 1 << 0
	IRQFDResample = 1 << 1
)

// irqfd is struct kvm_irqfd.
type irqfd struct {
	FD         uint32
	GSI        uint32
	Flags      uint32
	ResampleFD uint32
	_          [16]byte
}

// IRQFD ties an eventfd to an interrupt: each write to it raises an edge on gsi. Flags is 0 or
// IRQFDDeassign, which undoes it. The kernel keeps its own reference to the eventfd, and drops
// it when the caller's last copy is closed.
func (v *VM) IRQFD(fd int, gsi uint32, flags uint32) error {
	return set(&v.h, reqIRQFD, &irqfd{FD: uint32(fd), GSI: gsi, Flags: flags &^ IRQFDResample})
}

// IRQFDLevel ties an eventfd to a level-triggered interrupt: a write raises gsi, the guest's
// end-of-interrupt lowers it and signals resample, so that a device that still wants attention
// writes again ([CapIRQFDResample]).
func (v *VM) IRQFDLevel(fd, resample int, gsi uint32) error {
	return set(&v.h, reqIRQFD, &irqfd{
		FD: uint32(fd), GSI: gsi, Flags: IRQFDResample, ResampleFD: uint32(resample),
	})
}

// Flags of an IOEventFD.
const (
	// IOEventFDDatamatch signals only for writes of the value Datamatch; others exit.
	IOEventFDDatamatch = 1 << 0
	// IOEventFDPIO says that Addr is a port rather than a guest-physical address.
	IOEventFDPIO = 1 << 1
	// IOEventFDDeassign undoes an earlier call with otherwise equal fields.
	IOEventFDDeassign = 1 << 2
)

// IOEventFD is struct kvm_ioeventfd: guest writes to an address that signal an eventfd
// instead of leaving [VCPU.Run].
type IOEventFD struct {
	Datamatch uint64
	Addr      uint64
	// Len is the width of the write in bytes: 1, 2, 4 or 8, or 0 for any width
	// ([CapIOEventFDAnyLength]), which excludes Datamatch.
	Len uint32
	// FD is the eventfd; the kernel keeps its own reference.
	FD    int32
	Flags uint32
	_     [36]byte
}

// IOEventFD registers or, with IOEventFDDeassign, removes an ioeventfd.
func (v *VM) IOEventFD(e IOEventFD) error { return set(&v.h, reqIOEventFD, &e) }

// MSI is struct kvm_msi: a message-signalled interrupt as a device would write it.
type MSI struct {
	AddressLo uint32
	AddressHi uint32
	Data      uint32
	Flags     uint32
	DevID     uint32
	_         [12]byte
}

// SignalMSI delivers a message-signalled interrupt. It reports whether the guest took it;
// false means that the guest has it masked.
func (v *VM) SignalMSI(m MSI) (delivered bool, err error) {
	n, err := pointer(&v.h, reqSignalMSI, &m)
	return n > 0, err
}

// Route is where one interrupt line leads: to a pin of an in-kernel chip, or to a message.
type Route struct {
	// GSI is the line that IRQFD and IRQLine name.
	GSI uint32
	// MSI, if not nil, makes this a message route; AddressLo, AddressHi and Data count.
	MSI *MSI
	// Chip and Pin are the target of a route without MSI.
	Chip ChipID
	Pin  uint32
}

// Types of struct kvm_irq_routing_entry.
const (
	routeIRQChip = 1
	routeMSI     = 2
)

// routeWords is the size of struct kvm_irq_routing_entry in 64-bit words.
const routeWords = 6

// SetGSIRouting replaces the whole routing table; the kernel's default is that of a PC.
// One GSI may have several chip routes, as PC lines have (to a PIC and to the IOAPIC).
func (v *VM) SetGSIRouting(routes []Route) error {
	buf := make([]uint64, 1+routeWords*len(routes))
	buf[0] = uint64(len(routes)) // nr; flags are 0
	for i, r := range routes {
		w := buf[1+routeWords*i:]
		if r.MSI != nil {
			w[0] = uint64(r.GSI) | routeMSI<<32
			w[2] = uint64(r.MSI.AddressLo) | uint64(r.MSI.AddressHi)<<32
			w[3] = uint64(r.MSI.Data)
			continue
		}
		w[0] = uint64(r.GSI) | routeIRQChip<<32
		w[2] = uint64(r.Chip) | uint64(r.Pin)<<32
	}
	return set(&v.h, reqSetGSIRouting, &buf[0])
}
