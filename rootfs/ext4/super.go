package ext4

import "encoding/binary"

// Where the superblock is, and its size, in bytes.
const (
	superAt   = 1024
	superSize = 1024
)

// Offsets in the superblock (Documentation/filesystems/ext4/super.rst).
const (
	sbInodes      = 0x00
	sbBlocks      = 0x04
	sbFreeBlocks  = 0x0c
	sbFreeInodes  = 0x10
	sbFirstBlock  = 0x14
	sbLogBlock    = 0x18
	sbLogCluster  = 0x1c
	sbGroupBlocks = 0x20
	sbGroupClust  = 0x24
	sbGroupInodes = 0x28
	sbWriteTime   = 0x30
	sbMaxMounts   = 0x36
	sbMagic       = 0x38
	sbState       = 0x3a
	sbErrors      = 0x3c
	sbLastCheck   = 0x40
	sbRevision    = 0x4c
	sbFirstInode  = 0x54
	sbInodeSize   = 0x58
	sbGroupNumber = 0x5a
	sbCompat      = 0x5c
	sbIncompat    = 0x60
	sbROCompat    = 0x64
	sbUUID        = 0x68
	sbLabel       = 0x78
	sbJournal     = 0xe0
	sbHashSeed    = 0xec
	sbHashVersion = 0xfc
	sbBackupType  = 0xfd
	sbDescSize    = 0xfe
	sbMountOpts   = 0x100
	sbFirstMeta   = 0x104
	sbMakeTime    = 0x108
	sbBackup      = 0x10c // of the journal's inode: i_block, then the size
	sbBlocksHi    = 0x150
	sbFreeHi      = 0x158
	sbMinExtra    = 0x15c
	sbWantExtra   = 0x15e
	sbFlags       = 0x160
	sbCsumType    = 0x175
	sbOverhead    = 0x248
	sbCsum        = 0x3fc
)

const (
	magic = 0xef53

	stateClean  = 1
	stateErrors = 2

	compatJournal = 0x4
	compatOurs    = compatJournal | 0x8 | 0x20 // ext_attr, dir_index

	incompatFiletype = 0x2
	incompatRecover  = 0x4
	incompatMetaBG   = 0x10
	incompatExtents  = 0x40
	incompat64       = 0x80
	incompatOurs     = incompatFiletype | incompatMetaBG | incompatExtents | incompat64

	roSparseSuper = 0x1
	roLargeFile   = 0x2
	roHugeFile    = 0x8
	roDirNlink    = 0x20
	roExtraIsize  = 0x40
	roCsum        = 0x400
	roOurs        = roSparseSuper | roLargeFile | roHugeFile | roDirNlink | roExtraIsize | roCsum

	errorsReadOnly = 2 // remount read-only, so that an error does not spread
	signedHash     = 1
	halfMD4        = 1
	csumCRC32C     = 1

	mountXattr   = 0x4
	mountACL     = 0x8
	mountDiscard = 0x400

	firstInode   = 11 // the first that is not reserved
	rootInode    = 2
	journalInode = 8
	lostInode    = firstInode

	extraIsize = 32
)

// super is a superblock.
type super [superSize]byte

func (s *super) u16(at int) uint16       { return binary.LittleEndian.Uint16(s[at:]) }
func (s *super) u32(at int) uint32       { return binary.LittleEndian.Uint32(s[at:]) }
func (s *super) put16(at int, v uint16)  { binary.LittleEndian.PutUint16(s[at:], v) }
func (s *super) put32(at int, v uint32)  { binary.LittleEndian.PutUint32(s[at:], v) }
func (s *super) split(lo, hi int) uint64 { return uint64(s.u32(lo)) | uint64(s.u32(hi))<<32 }

func (s *super) putSplit(lo, hi int, v uint64) {
	s.put32(lo, uint32(v))
	s.put32(hi, uint32(v>>32))
}

func (s *super) seal() { s.put32(sbCsum, crc(^uint32(0), s[:sbCsum])) }

func (s *super) sealed() bool { return s.u32(sbCsum) == crc(^uint32(0), s[:sbCsum]) }

// seed is what all other checksums begin with.
func (s *super) seed() uint32 { return crc(^uint32(0), s[sbUUID:sbUUID+16]) }

// setShape fills in what depends on the size.
func (s *super) setShape(g geometry, freeBlocks uint64, freeInodes uint32) {
	s.put32(sbInodes, g.inodes*g.groups())
	s.putSplit(sbBlocks, sbBlocksHi, g.blocks)
	s.putSplit(sbFreeBlocks, sbFreeHi, freeBlocks)
	s.put32(sbFreeInodes, freeInodes)
}

// inGroup is the copy that belongs into a group.
func (s *super) inGroup(group uint32) super {
	c := *s
	c.put16(sbGroupNumber, uint16(group))
	c.seal()
	return c
}
