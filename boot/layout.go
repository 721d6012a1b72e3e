package boot

import "github.com/hutchvm/hutch/virtio/guestmem"

// Guest physical addresses of what the boot protocol needs. All lie below
// 640 KiB in memory that Linux leaves alone until it has read them, except the
// MP table, which Linux looks for in the BIOS area.
const (
	gdtAddr      = 0x500
	zeroPageAddr = 0x7000
	stackAddr    = 0x8ff0
	pml4Addr     = 0x9000
	pdptAddr     = 0xa000
	pdAddr       = 0xb000 // four pages: identity map of the first 4 GiB
	cmdlineAddr  = 0x20000
	lowMemoryEnd = 0x9fc00 // where the extended BIOS data area would begin
	mpTableAddr  = 0xf0000 // one of the three places the MP specification allows
	biosAreaEnd  = 0x100000
	highRAMStart = 0x100000

	// MaxCommandLine is the longest command line in bytes, without the
	// closing NUL (COMMAND_LINE_SIZE of x86 is 2048).
	MaxCommandLine = 2047

	// HoleStart and HoleEnd bound the part of the address space below 4 GiB
	// that never holds RAM: devices and the interrupt controllers live there.
	HoleStart = 3 << 30
	HoleEnd   = 4 << 30

	// MaxCPUs is the largest number of virtual CPUs that the MP table describes.
	MaxCPUs = 64

	pageSize = 4096
)

// Interrupt controller addresses of every PC; in-kernel KVM puts them there too.
const (
	IOAPICAddr = 0xfec00000
	LAPICAddr  = 0xfee00000
)

// RAM splits size bytes of guest memory around the hole below 4 GiB.
func RAM(size uint64) []guestmem.Range {
	if size <= HoleStart {
		return []guestmem.Range{{GPA: 0, Size: size}}
	}
	return []guestmem.Range{{GPA: 0, Size: HoleStart}, {GPA: HoleEnd, Size: size - HoleStart}}
}

// pageUp rounds n up to whole pages.
func pageUp(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }
