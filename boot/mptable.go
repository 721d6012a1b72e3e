package boot

import (
	"encoding/binary"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// IRQPins is the number of I/O APIC inputs; the MP table routes ISA interrupt
// n to input n for all of them, which is how device interrupts get their
// number on a machine without ACPI.
const IRQPins = 24

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

// writeMPTable describes cpus processors, one ISA bus and one I/O APIC.
func writeMPTable(mem *guestmem.Memory, cpus int) error {
	le := binary.LittleEndian
	size := mpHeaderSize + cpus*mpCPUEntrySize + (1+1+IRQPins+2)*mpOtherEntrySize
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
	for pin := range byte(IRQPins) {
		entry(mpOtherEntrySize, mpEntryIRQ, irqTypeINT, 0, 0, 0, pin, ioapicID, pin)
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
