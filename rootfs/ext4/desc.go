package ext4

import "encoding/binary"

// Offsets in a group descriptor of 64 bytes, and its flags.
const (
	bgBlockBitmap  = 0x00
	bgInodeBitmap  = 0x04
	bgInodeTable   = 0x08
	bgFreeBlocks   = 0x0c
	bgFreeInodes   = 0x0e
	bgDirs         = 0x10
	bgFlags        = 0x12
	bgBlockCsum    = 0x18
	bgInodeCsum    = 0x1a
	bgUnused       = 0x1c
	bgCsum         = 0x1e
	bgHi           = 0x20 // high halves of the block numbers
	bgFreeBlocksHi = 0x2c
	bgFreeInodesHi = 0x2e
	bgDirsHi       = 0x30
	bgUnusedHi     = 0x32
	bgBlockCsumHi  = 0x38
	bgInodeCsumHi  = 0x3a

	flagInodeUninit = 1 // no inode was ever used: bitmap and table are not read
	flagBlockUninit = 2 // nothing but metadata is used: the bitmap is not read
	flagInodeZeroed = 4 // the table is zero where it is unused
)

// desc is a group descriptor, in place.
type desc []byte

func (d desc) u16(at int) uint16      { return binary.LittleEndian.Uint16(d[at:]) }
func (d desc) put16(at int, v uint16) { binary.LittleEndian.PutUint16(d[at:], v) }

func (d desc) block(at int) uint64 {
	le := binary.LittleEndian
	return uint64(le.Uint32(d[at:])) | uint64(le.Uint32(d[at+bgHi:]))<<32
}

func (d desc) putBlock(at int, v uint64) {
	binary.LittleEndian.PutUint32(d[at:], uint32(v))
	binary.LittleEndian.PutUint32(d[at+bgHi:], uint32(v>>32))
}

// Counters and checksums are 16 bits at two places.
func (d desc) count(at, hi int) uint32 { return uint32(d.u16(at)) | uint32(d.u16(hi))<<16 }

func (d desc) putCount(at, hi int, v uint32) {
	d.put16(at, uint16(v))
	d.put16(hi, uint16(v>>16))
}

func (d desc) freeBlocks() uint32     { return d.count(bgFreeBlocks, bgFreeBlocksHi) }
func (d desc) setFreeBlocks(n uint32) { d.putCount(bgFreeBlocks, bgFreeBlocksHi, n) }
func (d desc) freeInodes() uint32     { return d.count(bgFreeInodes, bgFreeInodesHi) }
func (d desc) setFreeInodes(n uint32) { d.putCount(bgFreeInodes, bgFreeInodesHi, n) }
func (d desc) setDirs(n uint32)       { d.putCount(bgDirs, bgDirsHi, n) }
func (d desc) setUnused(n uint32)     { d.putCount(bgUnused, bgUnusedHi, n) }
func (d desc) flags() uint16          { return d.u16(bgFlags) }
func (d desc) setFlags(v uint16)      { d.put16(bgFlags, v) }

func (d desc) setBlockCsum(seed uint32, bitmap []byte) {
	d.putCount(bgBlockCsum, bgBlockCsumHi, crc(seed, bitmap))
}

func (d desc) setInodeCsum(seed uint32, bitmap []byte, inodes uint32) {
	d.putCount(bgInodeCsum, bgInodeCsumHi, crc(seed, bitmap[:inodes/8]))
}

func (d desc) seal(seed, group uint32) {
	d.put16(bgCsum, 0)
	d.put16(bgCsum, uint16(crc(crc32le(seed, group), d)))
}

// initDesc describes an empty group: nothing in it is used but its metadata.
func initDesc(d desc, g geometry, group uint32) {
	clear(d)
	at := g.blockBitmap(group)
	d.putBlock(bgBlockBitmap, at)
	d.putBlock(bgInodeBitmap, at+1)
	d.putBlock(bgInodeTable, at+2)
	d.setFreeBlocks(g.size(group) - g.overhead(group))
	d.setFreeInodes(g.inodes)
	d.setUnused(g.inodes)
	d.setFlags(flagInodeUninit | flagBlockUninit | flagInodeZeroed)
}

// fill sets the bits from..to-1.
func fill(bitmap []byte, from, to uint32) {
	for ; from < to && from%8 != 0; from++ {
		bitmap[from/8] |= 1 << (from % 8)
	}
	for ; from+8 <= to; from += 8 {
		bitmap[from/8] = 0xff
	}
	for ; from < to; from++ {
		bitmap[from/8] |= 1 << (from % 8)
	}
}

// unfill clears the bits from..to-1.
func unfill(bitmap []byte, from, to uint32) {
	for ; from < to; from++ {
		bitmap[from/8] &^= 1 << (from % 8)
	}
}
