package ext4

import (
	"fmt"
	"math/bits"
	"os"
)

// Grow makes the file system in f, which is not mounted, as large as size bytes
// allow, and the file at least as long. Content is kept. A size that makes no
// difference does nothing; a smaller one is ErrSize. If the file system was not
// unmounted, which is usual for a sandbox's disk, its journal is replayed first.
//
// The number of inodes for each 128 MiB stays what it is, so a disk that was made
// smaller than that has few. The limit is MaxSize.
//
// It syncs. A crash in the middle leaves a file system on which Grow works again,
// and which is consistent after that.
func Grow(f *os.File, size int64) error {
	if err := grow(f, size); err != nil {
		return &OpError{Op: "grow", Err: err}
	}
	return nil
}

func grow(f *os.File, size int64) error {
	if size < MinSize || size > MaxSize {
		return fmt.Errorf("%w: %d bytes: want %d to %d", ErrSize, size, MinSize, int64(MaxSize))
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	s, err := readOurs(f, fi.Size())
	if err != nil {
		return err
	}
	old := geometry{blocks: s.split(sbBlocks, sbBlocksHi), inodes: s.u32(sbGroupInodes)}
	have := int64(old.blocks) * BlockSize
	if size < have {
		return fmt.Errorf("%w: %d bytes are less than the %d there are", ErrSize, size, have)
	}
	g := geometry{blocks: uint64(size) / BlockSize, inodes: old.inodes}.trimmed()
	if g.blocks <= old.blocks {
		return extend(f, fi.Size(), size)
	}
	if s.u32(sbIncompat)&incompatRecover != 0 {
		if err := replay(f, s, old); err != nil {
			return err
		}
		if s, err = readOurs(f, fi.Size()); err != nil {
			return err
		}
		if s.split(sbBlocks, sbBlocksHi) != old.blocks || s.u32(sbGroupInodes) != old.inodes {
			return fmt.Errorf("%w: the journal changes the size", ErrLayout)
		}
	}
	if s.u16(sbState)&stateErrors != 0 {
		return ErrErrors
	}
	// New inode tables must read as zero; what the guest wrote behind its file
	// system does not.
	if fi.Size() > have {
		if err := punch(f, have, fi.Size()-have); err != nil {
			return err
		}
	}
	if err := extend(f, fi.Size(), size); err != nil {
		return err
	}
	gr := &grower{f: f, s: s, seed: s.seed(), old: old, g: g}
	return gr.run()
}

// readOurs reads a superblock and checks that Grow knows such a file system.
func readOurs(f *os.File, size int64) (*super, error) {
	s, err := readSuper(f)
	if err != nil {
		return nil, err
	}
	if _, err := s.info(size); err != nil {
		return nil, err
	}
	return s, s.ours()
}

func extend(f *os.File, from, to int64) error {
	if to <= from {
		return nil
	}
	return f.Truncate(to)
}

type grower struct {
	f      *os.File
	s      *super
	seed   uint32
	old, g geometry

	freeBlocks uint64
	freeInodes uint32
}

// run writes what the superblock does not speak of yet, and then that.
func (gr *grower) run() error {
	for meta := uint32(0); meta < gr.g.groups(); meta += descsPerMeta {
		if err := gr.metaGroup(meta); err != nil {
			return err
		}
	}
	if err := gr.f.Sync(); err != nil {
		return err
	}
	gr.s.setShape(gr.g, gr.freeBlocks, gr.freeInodes)
	gr.s.put32(sbOverhead, 0) // Linux computes it again
	if err := writeSupers(gr.f, gr.g, gr.s); err != nil {
		return err
	}
	return gr.f.Sync()
}

// metaGroup counts what is free in the groups that are described together, adds
// the new ones, and makes the group that was last as large as it can be now.
func (gr *grower) metaGroup(meta uint32) error {
	var block [BlockSize]byte
	last := gr.old.groups() - 1
	if meta <= last {
		if _, err := gr.f.ReadAt(block[:], int64(gr.old.descBlock(meta))*BlockSize); err != nil {
			return err
		}
	}
	for group := meta; group < min(gr.g.groups(), meta+descsPerMeta); group++ {
		d := desc(block[(group-meta)*descSize:][:descSize])
		var err error
		switch {
		case group < last:
			err = gr.check(d, group)
		case group == last:
			if err = gr.check(d, group); err == nil {
				err = gr.stretch(d, group)
			}
		default:
			initDesc(d, gr.g, group)
			if group == gr.g.groups()-1 {
				err = writeLastBitmap(gr.f, gr.g, gr.seed, d, group)
			}
			d.seal(gr.seed, group)
		}
		if err != nil {
			return err
		}
		gr.freeBlocks += uint64(d.freeBlocks())
		gr.freeInodes += d.freeInodes()
	}
	if meta+descsPerMeta <= last {
		return nil // nothing new in it
	}
	return writeDescs(gr.f, gr.g, meta, block[:])
}

// check looks whether a descriptor can be true.
func (gr *grower) check(d desc, group uint32) error {
	sum := d.u16(bgCsum)
	d.seal(gr.seed, group)
	switch {
	case d.u16(bgCsum) != sum:
		return fmt.Errorf("%w: checksum of group %d", ErrCorrupt, group)
	case d.block(bgBlockBitmap) != gr.old.blockBitmap(group):
		return fmt.Errorf("%w: bitmap of group %d", ErrLayout, group)
	case d.freeBlocks() > groupBlocks || d.freeInodes() > gr.old.inodes:
		return fmt.Errorf("%w: counters of group %d", ErrCorrupt, group)
	}
	return nil
}

// stretch gives the group that was the last one the blocks that it has now.
func (gr *grower) stretch(d desc, group uint32) error {
	from, to := gr.old.size(group), gr.g.size(group)
	isLast := group == gr.g.groups()-1
	if d.flags()&flagBlockUninit != 0 {
		d.setFreeBlocks(to - gr.g.overhead(group))
		if isLast {
			flags := d.flags()
			if err := writeLastBitmap(gr.f, gr.g, gr.seed, d, group); err != nil {
				return err
			}
			d.setFlags(flags &^ flagBlockUninit)
		}
		d.seal(gr.seed, group)
		return nil
	}
	var bitmap [BlockSize]byte
	at := int64(d.block(bgBlockBitmap)) * BlockSize
	if _, err := gr.f.ReadAt(bitmap[:], at); err != nil {
		return err
	}
	// Also true after a Grow that did not get to the superblock: the bits behind
	// the end are clear, or their checksum says so already.
	sum := d.count(bgBlockCsum, bgBlockCsumHi)
	known := crc(gr.seed, bitmap[:]) == sum
	fill(bitmap[:], from, groupBlocks)
	known = known || crc(gr.seed, bitmap[:]) == sum
	unfill(bitmap[:], from, to)
	if !known && crc(gr.seed, bitmap[:]) != sum {
		return fmt.Errorf("%w: checksum of the bitmap of group %d", ErrCorrupt, group)
	}
	used := 0
	for _, b := range bitmap {
		used += bits.OnesCount8(b)
	}
	d.setFreeBlocks(uint32(groupBlocks - used))
	d.setBlockCsum(gr.seed, bitmap[:])
	d.seal(gr.seed, group)
	_, err := gr.f.WriteAt(bitmap[:], at)
	return err
}
