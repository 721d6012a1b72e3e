package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc is CRC32C as ext4 uses it: begun with a value given and not inverted at the end.
func crc(seed uint32, p []byte) uint32 { return ^crc32.Update(^seed, castagnoli, p) }

func crc32le(seed, v uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return crc(seed, b[:])
}

// sealDir fills in the checksum in the last 12 bytes of a directory block, which
// look like an unused entry.
func sealDir(block []byte, seed, inode uint32) {
	tail := block[len(block)-dirTail:]
	clear(tail)
	tail[4], tail[7] = dirTail, 0xde
	sum := crc(crc32le(crc32le(seed, inode), 0), block[:len(block)-dirTail])
	binary.LittleEndian.PutUint32(tail[8:], sum)
}

const dirTail = 12

// sealInode fills in the checksum of an inode of generation 0.
func sealInode(b []byte, seed, inode uint32) {
	le := binary.LittleEndian
	le.PutUint16(b[0x7c:], 0)
	le.PutUint16(b[0x82:], 0)
	sum := crc(crc32le(crc32le(seed, inode), 0), b)
	le.PutUint16(b[0x7c:], uint16(sum))
	le.PutUint16(b[0x82:], uint16(sum>>16))
}
