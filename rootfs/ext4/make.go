package ext4

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"time"
)

// Make makes an empty file system of size bytes in f, a regular file whose
// content is lost. A size that is not a whole number of blocks is rounded
// down for the file system; the file has exactly size bytes and stays sparse.
// It does not sync: a file that was only half written before a crash must be
// made again.
func Make(f *os.File, size int64, o Options) error {
	if err := makeFS(f, size, o); err != nil {
		return &OpError{Op: "make", Err: err}
	}
	return nil
}

func makeFS(f *os.File, size int64, o Options) error {
	if size < MinSize || size > MaxSize {
		return fmt.Errorf("%w: %d bytes: want %d to %d", ErrSize, size, MinSize, int64(MaxSize))
	}
	if len(o.Label) > 16 {
		return fmt.Errorf("Label %q: over 16 bytes", o.Label)
	}
	if fi, err := f.Stat(); err != nil {
		return err
	} else if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	if o.UUID == ([16]byte{}) {
		_, _ = rand.Read(o.UUID[:])                                     // never fails
		o.UUID[6], o.UUID[8] = o.UUID[6]&0x0f|0x40, o.UUID[8]&0x3f|0x80 // a version 4 UUID
	}
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	if o.Mode == 0 {
		o.Mode = 0o755
	}
	// What was there must read as zero, without writing it.
	if err := f.Truncate(0); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	m := &maker{f: f, g: newGeometry(size), o: o}
	return m.run()
}

// maker writes the blocks of a new file system.
type maker struct {
	f    *os.File
	g    geometry
	o    Options
	s    super
	seed uint32
}

func (m *maker) write(block uint64, p []byte) error {
	_, err := m.f.WriteAt(p, int64(block)*BlockSize)
	return err
}

func (m *maker) run() error {
	m.initSuper()
	m.seed = m.s.seed()

	first := uint64(m.g.overhead(0))
	root, lost, journal := first, first+1, first+1+lostBlocks
	journalLen := m.g.journalBlocks()
	used := uint32(journal) + journalLen

	if err := m.writeInodes(root, lost, journal, journalLen); err != nil {
		return err
	}
	freeBlocks, freeInodes, err := m.writeGroups(used)
	if err != nil {
		return err
	}
	m.s.setShape(m.g, freeBlocks, freeInodes)
	return writeSupers(m.f, m.g, &m.s)
}

// writeSupers writes all superblocks, the one that counts at the end.
func writeSupers(f *os.File, g geometry, s *super) error {
	for group := g.groups() - 1; group > 0; group-- {
		if !hasSuper(group) {
			continue
		}
		c := s.inGroup(group)
		if _, err := f.WriteAt(c[:], int64(g.start(group))*BlockSize); err != nil {
			return err
		}
	}
	s.seal()
	_, err := f.WriteAt(s[:], superAt)
	return err
}

// initSuper fills in what does not depend on the groups.
func (m *maker) initSuper() {
	s, now := &m.s, uint32(m.o.Time.Unix())
	s.put32(sbLogBlock, 2) // 1024 << 2
	s.put32(sbLogCluster, 2)
	s.put32(sbGroupBlocks, groupBlocks)
	s.put32(sbGroupClust, groupBlocks)
	s.put32(sbGroupInodes, m.g.inodes)
	s.put32(sbWriteTime, now)
	s.put16(sbMaxMounts, 0xffff) // never ask for a check
	s.put16(sbMagic, magic)
	s.put16(sbState, stateClean)
	s.put16(sbErrors, errorsReadOnly)
	s.put32(sbLastCheck, now)
	s.put32(sbRevision, 1)
	s.put32(sbFirstInode, firstInode)
	s.put16(sbInodeSize, inodeSize)
	compat := uint32(compatOurs)
	if m.g.journalBlocks() == 0 {
		compat &^= compatJournal
	}
	s.put32(sbCompat, compat)
	s.put32(sbIncompat, incompatOurs)
	s.put32(sbROCompat, roOurs)
	copy(s[sbUUID:], m.o.UUID[:])
	copy(s[sbLabel:sbLabel+16], m.o.Label)
	seed := sha256.Sum256(m.o.UUID[:])
	copy(s[sbHashSeed:sbHashSeed+16], seed[:])
	s[sbHashVersion] = halfMD4
	s.put16(sbDescSize, descSize)
	s.put32(sbMountOpts, mountXattr|mountACL|mountDiscard)
	s.put32(sbMakeTime, now)
	s.put16(sbMinExtra, extraIsize)
	s.put16(sbWantExtra, extraIsize)
	s.put32(sbFlags, signedHash)
	s[sbCsumType] = csumCRC32C
}

// writeGroups writes all descriptors and the two or three bitmaps that are not
// left to Linux. The first used blocks of the disk are taken.
func (m *maker) writeGroups(used uint32) (freeBlocks uint64, freeInodes uint32, err error) {
	groups := m.g.groups()
	var block [BlockSize]byte
	for meta := uint32(0); meta < groups; meta += descsPerMeta {
		clear(block[:])
		for group := meta; group < min(groups, meta+descsPerMeta); group++ {
			d := desc(block[(group-meta)*descSize:][:descSize])
			initDesc(d, m.g, group)
			if group == 0 {
				err = m.firstGroup(d, used)
			} else if group == groups-1 {
				err = m.lastGroup(d, group)
			}
			if err != nil {
				return 0, 0, err
			}
			d.seal(m.seed, group)
			freeBlocks += uint64(d.freeBlocks())
			freeInodes += d.freeInodes()
		}
		if err := writeDescs(m.f, m.g, meta, block[:]); err != nil {
			return 0, 0, err
		}
	}
	return freeBlocks, freeInodes, nil
}

// writeDescs writes the descriptors of the meta group that begins at group meta
// to all their places.
func writeDescs(f *os.File, g geometry, meta uint32, block []byte) error {
	for group := meta; group < min(g.groups(), meta+descsPerMeta); group++ {
		if hasDescs(group) {
			if _, err := f.WriteAt(block, int64(g.descBlock(group))*BlockSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstGroup marks what the new file system uses.
func (m *maker) firstGroup(d desc, used uint32) error {
	var blocks, inodes [BlockSize]byte
	fill(blocks[:], 0, used)
	fill(blocks[:], m.g.size(0), groupBlocks)
	fill(inodes[:], 0, firstInode)
	fill(inodes[:], m.g.inodes, groupBlocks)

	d.setFlags(flagInodeZeroed)
	d.setFreeBlocks(m.g.size(0) - used)
	d.setFreeInodes(m.g.inodes - firstInode)
	d.setUnused(m.g.inodes - firstInode)
	d.setDirs(2)
	d.setBlockCsum(m.seed, blocks[:])
	d.setInodeCsum(m.seed, inodes[:], m.g.inodes)
	at := m.g.blockBitmap(0)
	if err := m.write(at, blocks[:]); err != nil {
		return err
	}
	return m.write(at+1, inodes[:])
}

// lastGroup writes a block bitmap: Linux and e2fsck want that of the last
// group, which ends early.
func (m *maker) lastGroup(d desc, group uint32) error {
	return writeLastBitmap(m.f, m.g, m.seed, d, group)
}

func writeLastBitmap(f *os.File, g geometry, seed uint32, d desc, group uint32) error {
	var blocks [BlockSize]byte
	fill(blocks[:], 0, g.overhead(group))
	fill(blocks[:], g.size(group), groupBlocks)
	d.setFlags(flagInodeUninit | flagInodeZeroed)
	d.setBlockCsum(seed, blocks[:])
	_, err := f.WriteAt(blocks[:], int64(g.blockBitmap(group))*BlockSize)
	return err
}

// lostBlocks is the size of lost+found: e2fsck wants room there beforehand.
const lostBlocks = 4

func (m *maker) writeInodes(root, lost, journal uint64, journalLen uint32) error {
	table := make([]byte, BlockSize) // 16 inodes, numbered from 1
	put := func(number uint32, n inode) []byte {
		b := table[(number-1)*inodeSize:][:inodeSize]
		n.encode(b, m.o.Time)
		sealInode(b, m.seed, number)
		return b
	}
	put(rootInode, inode{mode: 0o40000 | m.o.Mode&0o7777, uid: m.o.UID, gid: m.o.GID, links: 3, block: root, blocks: 1})
	put(lostInode, inode{mode: 0o40700, links: 2, block: lost, blocks: lostBlocks})
	if journalLen > 0 {
		b := put(journalInode, inode{mode: 0o100600, links: 1, block: journal, blocks: journalLen})
		m.s.put32(sbJournal, journalInode)
		m.s[sbBackupType] = 1
		copy(m.s[sbBackup:], b[0x28:0x28+60])
		m.s.put32(sbBackup+60, 0)
		m.s.put32(sbBackup+64, journalLen*BlockSize)
		if err := m.write(journal, newJournal(journalLen, m.o.UUID)); err != nil {
			return err
		}
	}
	if err := m.write(m.g.blockBitmap(0)+2, table); err != nil {
		return err
	}
	return m.writeDirs(root, lost)
}

func (m *maker) writeDirs(root, lost uint64) error {
	block := make([]byte, BlockSize)
	entries := dirEntry(block, 0, rootInode, 12, ".")
	entries = dirEntry(block, entries, rootInode, 12, "..")
	dirEntry(block, entries, lostInode, BlockSize-dirTail-entries, "lost+found")
	sealDir(block, m.seed, rootInode)
	if err := m.write(root, block); err != nil {
		return err
	}
	for i := range uint64(lostBlocks) {
		clear(block)
		if i == 0 {
			entries = dirEntry(block, 0, lostInode, 12, ".")
			dirEntry(block, entries, rootInode, BlockSize-dirTail-entries, "..")
		} else {
			dirEntry(block, 0, 0, BlockSize-dirTail, "")
		}
		sealDir(block, m.seed, lostInode)
		if err := m.write(lost+i, block); err != nil {
			return err
		}
	}
	return nil
}

// dirEntry writes an entry for a directory of that name and returns where the
// next one begins.
func dirEntry(block []byte, at int, number uint32, length int, name string) int {
	le := binary.LittleEndian
	le.PutUint32(block[at:], number)
	le.PutUint16(block[at+4:], uint16(length))
	block[at+6] = byte(len(name))
	if number != 0 {
		block[at+7] = 2 // a directory
	}
	copy(block[at+8:], name)
	return at + length
}

// inode is a file or directory in one extent.
type inode struct {
	mode, uid, gid uint32
	links          uint16
	block          uint64
	blocks         uint32
}

func (n inode) encode(b []byte, t time.Time) {
	le := binary.LittleEndian
	seconds := uint32(t.Unix())
	extra := uint32(t.Unix()>>32)&3 | uint32(t.Nanosecond())<<2
	le.PutUint16(b[0x00:], uint16(n.mode))
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], n.blocks*BlockSize)
	for _, at := range [...]int{0x08, 0x0c, 0x10, 0x90} { // access, change, modification, creation
		le.PutUint32(b[at:], seconds)
	}
	for _, at := range [...]int{0x84, 0x88, 0x8c, 0x94} {
		le.PutUint32(b[at:], extra)
	}
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], n.links)
	le.PutUint32(b[0x1c:], n.blocks*(BlockSize/512))
	le.PutUint32(b[0x20:], 0x80000) // uses extents
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	le.PutUint16(b[0x80:], extraIsize)

	e := b[0x28:]
	le.PutUint16(e[0:], 0xf30a)
	le.PutUint16(e[2:], 1) // extents here
	le.PutUint16(e[4:], 4) // room for
	le.PutUint16(e[16:], uint16(n.blocks))
	le.PutUint16(e[18:], uint16(n.block>>32))
	le.PutUint32(e[20:], uint32(n.block))
}
