package ext4

// Fixed numbers of the layout, in blocks unless said otherwise.
const (
	groupBlocks  = 8 * BlockSize // as many as a bitmap block has bits
	inodeSize    = 256           // bytes
	descSize     = 64            // bytes
	descsPerMeta = BlockSize / descSize

	// maxInodes of a group makes one inode for 16 KiB.
	maxInodes = groupBlocks / 4
	// minTail is the least room for data that makes a last group worthwhile.
	minTail = 64
)

// geometry is the shape of a file system; everything else follows from it.
type geometry struct {
	blocks uint64 // in all
	inodes uint32 // in each group
}

// newGeometry fits a file system into size bytes.
func newGeometry(size int64) geometry {
	g := geometry{blocks: uint64(size) / BlockSize}
	// Whole blocks of inodes, and whole bytes of their bitmap.
	g.inodes = uint32(min(maxInodes, (g.blocks/4+15)&^15))
	return g.trimmed()
}

// trimmed drops a last group that has no room for anything but its own metadata.
func (g geometry) trimmed() geometry {
	if last := g.groups() - 1; last > 0 && g.size(last) < g.overhead(last)+minTail {
		g.blocks = g.start(last)
	}
	return g
}

func (g geometry) groups() uint32 { return uint32((g.blocks + groupBlocks - 1) / groupBlocks) }

func (g geometry) start(group uint32) uint64 { return uint64(group) * groupBlocks }

// size is the number of blocks of a group.
func (g geometry) size(group uint32) uint32 {
	return uint32(min(groupBlocks, g.blocks-g.start(group)))
}

func (g geometry) tableBlocks() uint32 { return g.inodes * inodeSize / BlockSize }

// blockBitmap is the block of the group's block bitmap. The inode bitmap and
// the inode table follow it.
func (g geometry) blockBitmap(group uint32) uint64 {
	at := g.start(group)
	if hasSuper(group) {
		at++
	}
	if hasDescs(group) {
		at++
	}
	return at
}

// overhead is how many blocks at the start of a group hold metadata.
func (g geometry) overhead(group uint32) uint32 {
	return uint32(g.blockBitmap(group)-g.start(group)) + 2 + g.tableBlocks()
}

// descBlock is where the descriptors of a meta group are, in the given group.
func (g geometry) descBlock(group uint32) uint64 {
	at := g.start(group)
	if hasSuper(group) {
		at++
	}
	return at
}

// hasSuper reports whether the group begins with a superblock (sparse_super):
// groups 0 and 1 and the powers of 3, 5 and 7.
func hasSuper(group uint32) bool {
	if group <= 1 {
		return true
	}
	for _, base := range [...]uint32{3, 5, 7} {
		n := uint64(base)
		for n < uint64(group) {
			n *= uint64(base)
		}
		if n == uint64(group) {
			return true
		}
	}
	return false
}

// hasDescs reports whether the group has the descriptors of its meta group: the
// first group has them, the second and the last have copies.
func hasDescs(group uint32) bool {
	i := group % descsPerMeta
	return i == 0 || i == 1 || i == descsPerMeta-1
}

// journalBlocks is the size of the journal: none on very small disks.
func (g geometry) journalBlocks() uint32 {
	switch {
	case g.blocks < 8<<20/BlockSize:
		return 0
	case g.blocks < 128<<20/BlockSize:
		return 4 << 20 / BlockSize
	case g.blocks < 1<<30/BlockSize:
		return 16 << 20 / BlockSize
	}
	return 64 << 20 / BlockSize
}
