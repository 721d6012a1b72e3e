package boot

import (
	"encoding/binary"

	"github.com/hutchvm/hutch/kvm"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

const (
	pagePresent  = 1 << 0
	pageWritable = 1 << 1
	pageHuge     = 1 << 7
	hugePageSize = 2 << 20

	cr0PE     = 1 << 0
	cr0ET     = 1 << 4
	cr0PG     = 1 << 31
	cr4PAE    = 1 << 5
	eferLME   = 1 << 8
	eferLMA   = 1 << 10
	flagsInit = 1 << 1 // the bit of RFLAGS that is always set

	codeSelector = 0x10 // __BOOT_CS
	dataSelector = 0x18 // __BOOT_DS
	typeCode     = 0xb  // execute, read, accessed
	typeData     = 0x3  // read, write, accessed
)

// writePageTables maps the first 4 GiB onto themselves in 2 MiB pages, which
// covers kernel, zero page, command line and initramfs wherever they lie.
func writePageTables(mem *guestmem.Memory) error {
	b, err := mem.Slice(pml4Addr, 6*pageSize)
	if err != nil {
		return err
	}
	clear(b)
	le := binary.LittleEndian
	le.PutUint64(b, pdptAddr|pagePresent|pageWritable)
	pdpt, pd := b[pdptAddr-pml4Addr:], b[pdAddr-pml4Addr:]
	for i := range uint64(4) {
		le.PutUint64(pdpt[i*8:], (pdAddr+i*pageSize)|pagePresent|pageWritable)
	}
	for i := range uint64(4 * 512) {
		le.PutUint64(pd[i*8:], i*hugePageSize|pagePresent|pageWritable|pageHuge)
	}
	return nil
}

func writeGDT(mem *guestmem.Memory) error {
	b, err := mem.Slice(gdtAddr, 4*8)
	if err != nil {
		return err
	}
	clear(b)
	le := binary.LittleEndian
	le.PutUint64(b[codeSelector:], 0x00af9b000000ffff)
	le.PutUint64(b[dataSelector:], 0x00cf93000000ffff)
	return nil
}

// EntryState gives the registers with which the boot CPU enters kernel k.
// sregs is the CPU's state after reset, of which only what the boot protocol
// names is changed.
func EntryState(k Kernel, sregs kvm.SRegs) (kvm.Regs, kvm.SRegs) {
	seg := func(selector uint16, typ uint8) kvm.Segment {
		s := kvm.Segment{Limit: 0xffffffff, Selector: selector, Type: typ, Present: 1, S: 1, G: 1}
		if typ == typeCode {
			s.L = 1
		} else {
			s.DB = 1
		}
		return s
	}
	data := seg(dataSelector, typeData)
	sregs.CS = seg(codeSelector, typeCode)
	sregs.DS, sregs.ES, sregs.FS, sregs.GS, sregs.SS = data, data, data, data, data
	sregs.GDT.Base, sregs.GDT.Limit = gdtAddr, 4*8-1
	sregs.CR0 = cr0PE | cr0ET | cr0PG
	sregs.CR3 = pml4Addr
	sregs.CR4 |= cr4PAE
	sregs.EFER |= eferLME | eferLMA
	return kvm.Regs{RIP: k.Entry, RSI: zeroPageAddr, RSP: stackAddr, RBP: stackAddr, RFLAGS: flagsInit}, sregs
}
