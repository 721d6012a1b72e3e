package boot

import (
	"encoding/binary"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// IRQPins is the number of I/O APIC inputs.
const IRQPins = 24

// timerPin is the input of the legacy timer, which Linux looks for.
const timerPin = 0

const (
	mpEntryCPU       = 0
	mpEntryBus       = 1
	mpEntryIOAPIC    = 2
	mpEntryIRQ       = 3
	mpEntryLocalIRQ  = 4
	mpVersion14      = 4
	apicVersion      = 0x14
	cpuEnabled       = 1
	cpuBoot          = 2
	cpuSignature     = 0x600
	cpuFeatures      = 0x201 // FPU and on-chip APIC
	irqTypeINT       = 0
	irqTypeNMI       = 1
	irqTypeExtINT    = 3
	allLocalAPICs    = 0xff
	mpHeaderSize     = 44
	mpFloatingSize   = 16
	mpCPUEntrySize   = 20
	mpOtherEntrySize = 8
)

// writeMPTable describes cpus processors, one ISA bus and one I/O APIC. ISA
// interrupt n is routed to input n for the timer and the given interrupts,
// which is how device interrupts get their number on a machine without ACPI.
// Others are left out: Linux programs each input that has an entry, and every
// access to the I/O APIC is an exit.
func writeMPTable(mem *guestmem.Memory, cpus int, irqs []uint32) error {
	le := binary.LittleEndian
	size := mpHeaderSize + cpus*mpCPUEntrySize + (1+1+1+len(irqs)+2)*mpOtherEntrySize
	b, err := mem.Slice(mpTableAddr, uint64(mpFloatingSize+size))
	if err != nil {
		return err
	}
	clear(b)

	f := b[:mpFloatingSize]
	copy(f, "_MP_")
	le.PutUint32(f[4:], mpTableAddr+mpFloatingSize)
	f[8], f[9] = 1, mpVersion14 // length in units of 16 bytes, revision
	f[10] = checksum(f)

	t := b[mpFloatingSize:]
	copy(t, "PCMP")
	le.PutUint16(t[4:], uint16(size))
	t[6] = mpVersion14
	copy(t[8:], "HUTCH   ")
	copy(t[16:], "MICROVM     ")
	le.PutUint32(t[36:], LAPICAddr)

	e, count := t[mpHeaderSize:], 0
	entry := func(size int, fields ...byte) {
		copy(e, fields)
		e = e[size:]
		count++
	}
	ioapicID := byte(cpus)
	for i := range cpus {
		flags := byte(cpuEnabled)
		if i == 0 {
			flags |= cpuBoot
		}
		le.PutUint32(e[4:], cpuSignature)
		le.PutUint32(e[8:], cpuFeatures)
		entry(mpCPUEntrySize, mpEntryCPU, byte(i), apicVersion, flags)
	}
	entry(mpOtherEntrySize, mpEntryBus, 0, 'I', 'S', 'A', ' ', ' ', ' ')
	le.PutUint32(e[4:], IOAPICAddr)
	entry(mpOtherEntrySize, mpEntryIOAPIC, ioapicID, apicVersion, 1)
	for _, irq := range append([]uint32{timerPin}, irqs...) {
		entry(mpOtherEntrySize, mpEntryIRQ, irqTypeINT, 0, 0, 0, byte(irq), ioapicID, byte(irq))
	}
	entry(mpOtherEntrySize, mpEntryLocalIRQ, irqTypeExtINT, 0, 0, 0, 0, allLocalAPICs, 0)
	entry(mpOtherEntrySize, mpEntryLocalIRQ, irqTypeNMI, 0, 0, 0, 0, allLocalAPICs, 1)
	le.PutUint16(t[34:], uint16(count))
	t[7] = checksum(t[:size])
	return nil
}

// checksum gives the byte that makes b sum to zero.
func checksum(b []byte) byte {
	var sum byte
	for _, c := range b {
		sum += c
	}
	return -sum
}
