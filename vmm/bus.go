package vmm

import (
	"fmt"

	"github.com/hutchvm/hutch/virtio"
)

// Where devices lie in the hole below 4 GiB, and which interrupts they have.
const (
	mmioBase = 0xd0000000
	mmioSize = 0x1000
	// irqFirst leaves out timer, keyboard, cascade and serial ports; irqLast
	// is the last I/O APIC input.
	irqFirst = 5
	irqLast  = 23
)

// slot is one virtio device on the bus.
type slot struct {
	name string
	mmio *virtio.MMIO
	addr uint64
	irq  uint32
}

// cmdline announces the device to Linux' virtio_mmio driver.
func (s *slot) cmdline() string {
	return fmt.Sprintf(" virtio_mmio.device=4K@%#x:%d", s.addr, s.irq)
}

// mmioRead answers a guest read; addresses that belong to nobody read as all ones.
func (m *Machine) mmioRead(addr uint64, p []byte) {
	if s := m.slotAt(addr); s != nil {
		s.mmio.Read(addr-s.addr, p)
		return
	}
	for i := range p {
		p[i] = 0xff
	}
}

func (m *Machine) mmioWrite(addr uint64, p []byte) {
	if s := m.slotAt(addr); s != nil {
		s.mmio.Write(addr-s.addr, p)
	}
}

func (m *Machine) slotAt(addr uint64) *slot {
	if i := (addr - mmioBase) / mmioSize; addr >= mmioBase && i < uint64(len(m.slots)) {
		return &m.slots[i]
	}
	return nil
}

// Ports of the few PC devices that Linux touches on its way up.
const (
	portKeyboardStatus = 0x64 // read: input buffer empty; write 0xfe: reset
	portSerialData     = 0x3f8
	portSerialStatus   = 0x3f8 + 5
	keyboardReset      = 0xfe
	serialIdle         = 0x60 // transmitter and holding register empty
)

func portRead(port uint16, p []byte) {
	for i := range p {
		p[i] = 0xff
	}
	switch port {
	case portKeyboardStatus:
		p[0] = 0
	case portSerialStatus:
		p[0] = serialIdle
	}
}

// portWrite handles a guest's OUT of one element; it reports whether the machine goes on.
func (m *Machine) portWrite(port uint16, p []byte) bool {
	switch {
	case port == ControlPort && p[0] == BootMark:
		m.bootMark.CompareAndSwap(0, m.sinceStart())
	case port == ControlPort && p[0] == ReadyMark:
		m.hold()
	case port == ControlPort && p[0] == PowerOffMark:
		m.end(Exit{Reason: PowerOff})
		return false
	case port == portKeyboardStatus && p[0] == keyboardReset:
		m.end(m.panicOr(GuestReboot))
		return false
	case port == portSerialData:
		m.serial.Write(p[:1])
	}
	return true
}
