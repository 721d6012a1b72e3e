package ext4

import "encoding/binary"

// Numbers of the journal, which is in big-endian order
// (Documentation/filesystems/ext4/journal.rst).
const (
	jMagic   = 0xc03b3998
	jSuperV2 = 4
)

// newJournal is the superblock of an empty journal.
func newJournal(blocks uint32, uuid [16]byte) []byte {
	b := make([]byte, BlockSize)
	be := binary.BigEndian
	be.PutUint32(b[0x00:], jMagic)
	be.PutUint32(b[0x04:], jSuperV2)
	be.PutUint32(b[0x0c:], BlockSize)
	be.PutUint32(b[0x10:], blocks)
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first sequence number
	copy(b[0x30:], uuid[:])
	be.PutUint32(b[0x40:], 1) // users
	return b
}
