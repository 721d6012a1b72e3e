package boot

import (
	"encoding/binary"
	"strings"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Offsets into struct boot_params, the "zero page".
const (
	bpExtRamdiskImage = 0x0c0
	bpExtRamdiskSize  = 0x0c4
	bpE820Entries     = 0x1e8
	bpSetup           = 0x1f1
	bpBootFlag        = 0x1fe
	bpHeader          = 0x202
	bpVersion         = 0x206
	bpTypeOfLoader    = 0x210
	bpLoadflags       = 0x211
	bpRamdiskImage    = 0x218
	bpRamdiskSize     = 0x21c
	bpCmdLinePtr      = 0x228
	bpAlignment       = 0x230
	bpCmdlineSize     = 0x238
	bpE820Table       = 0x2d0

	e820EntrySize  = 20
	e820RAM        = 1
	e820Reserved   = 2
	loaderUnknown  = 0xff // "undefined" in the table of boot loader IDs
	bootFlag       = 0xaa55
	kernelAlign    = 0x1000000
	setupForVmlinx = 0x020f
)

// Params is what the guest kernel is told at its start.
type Params struct {
	Kernel  Kernel
	CmdLine string
	// Initrd is the initramfs; zero when there is none.
	Initrd Initrd
	// CPUs is the number of virtual CPUs, 1 to MaxCPUs.
	CPUs int
	// IRQs are the I/O APIC inputs that devices use, 1 to IRQPins-1.
	IRQs []uint32
}

// Write puts zero page, command line, page tables, GDT and MP table into mem.
// Afterwards the boot CPU is started with the registers of [EntryState].
func Write(mem *guestmem.Memory, p Params) error {
	if p.CPUs < 1 || p.CPUs > MaxCPUs {
		return opErr("write MP table", because(ErrTopology, "%d CPUs, want 1 to %d", p.CPUs, MaxCPUs))
	}
	for _, irq := range p.IRQs {
		if irq <= timerPin || irq >= IRQPins {
			return opErr("write MP table", because(ErrTopology, "interrupt %d, want 1 to %d", irq, IRQPins-1))
		}
	}
	for _, step := range []struct {
		op string
		fn func() error
	}{
		{"write command line", func() error { return writeCmdLine(mem, p.CmdLine) }},
		{"write zero page", func() error { return writeZeroPage(mem, p) }},
		{"write page tables", func() error { return writePageTables(mem) }},
		{"write GDT", func() error { return writeGDT(mem) }},
		{"write MP table", func() error { return writeMPTable(mem, p.CPUs, p.IRQs) }},
	} {
		if err := step.fn(); err != nil {
			return opErr(step.op, err)
		}
	}
	return nil
}

func writeCmdLine(mem *guestmem.Memory, s string) error {
	if len(s) > MaxCommandLine {
		return because(ErrCommandLine, "%d bytes, at most %d", len(s), MaxCommandLine)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return because(ErrCommandLine, "NUL byte")
	}
	b, err := mem.Slice(cmdlineAddr, uint64(len(s))+1)
	if err != nil {
		return err
	}
	copy(b, s)
	b[len(s)] = 0
	return nil
}

func writeZeroPage(mem *guestmem.Memory, p Params) error {
	zp, err := mem.Slice(zeroPageAddr, pageSize)
	if err != nil {
		return err
	}
	clear(zp)
	le := binary.LittleEndian
	if p.Kernel.setup != nil {
		copy(zp[bpSetup:], p.Kernel.setup)
	} else {
		le.PutUint16(zp[bpBootFlag:], bootFlag)
		le.PutUint32(zp[bpHeader:], setupMagic)
		le.PutUint16(zp[bpVersion:], setupForVmlinx)
		le.PutUint32(zp[bpAlignment:], kernelAlign)
		le.PutUint32(zp[bpCmdlineSize:], MaxCommandLine)
		zp[bpLoadflags] = loadedHigh
	}
	zp[bpTypeOfLoader] = loaderUnknown
	le.PutUint32(zp[bpCmdLinePtr:], cmdlineAddr)
	le.PutUint32(zp[bpRamdiskImage:], uint32(p.Initrd.GPA))
	le.PutUint32(zp[bpRamdiskSize:], uint32(p.Initrd.Size))
	le.PutUint32(zp[bpExtRamdiskImage:], uint32(p.Initrd.GPA>>32))
	le.PutUint32(zp[bpExtRamdiskSize:], uint32(p.Initrd.Size>>32))

	table, n := zp[bpE820Table:], 0
	add := func(start, end uint64, kind uint32) {
		e := table[n*e820EntrySize:]
		le.PutUint64(e, start)
		le.PutUint64(e[8:], end-start)
		le.PutUint32(e[16:], kind)
		n++
	}
	add(0, lowMemoryEnd, e820RAM)
	add(lowMemoryEnd, biosAreaEnd, e820Reserved)
	for _, r := range mem.Regions() {
		start, end := r.GPA, r.GPA+r.Size
		if start == 0 {
			start = highRAMStart
		}
		if end > start {
			add(start, end, e820RAM)
		}
	}
	zp[bpE820Entries] = byte(n)
	return nil
}
