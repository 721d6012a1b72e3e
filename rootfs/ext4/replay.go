package ext4

import (
	"encoding/binary"
	"fmt"
	"os"
)

// Numbers of the journal that replaying needs.
const (
	jDescriptor = 1
	jCommit     = 2
	jRevoke     = 5

	jIncompatRevoke = 0x1
	jIncompat64     = 0x2
	jIncompatCsum3  = 0x10

	tagEscape   = 1
	tagSameUUID = 2
	tagLast     = 8
	tagSize     = 16

	jHeader = 12

	// maxRevokes bounds the memory for revoke records, which the guest wrote.
	maxRevokes = 1 << 20
)

var be = binary.BigEndian

// replay writes the committed transactions of the journal to their places, as
// Linux does at mount, and marks the journal empty and the file system clean.
// Nothing is written before all of the log was found to be sound.
func replay(f *os.File, s *super, g geometry) error {
	j, err := openJournal(f, s, g)
	if err != nil {
		return err
	}
	for _, pass := range []func(*journal) error{(*journal).scan, (*journal).write} {
		if err := pass(j); err != nil {
			return err
		}
	}
	return j.finish()
}

// journal is the log of a file system that was not unmounted.
type journal struct {
	f      *os.File
	g      geometry
	blocks []extent // where it is on the disk
	super  []byte
	first  uint32 // first block of the log
	length uint32
	seed   uint32
	wide   bool // block numbers have 64 bits

	end     uint32            // sequence number after the last committed transaction
	revoked map[uint64]uint32 // block → the last transaction that revoked it
}

type extent struct {
	first, length uint32
	at            uint64
}

// openJournal reads the journal's inode and superblock.
func openJournal(f *os.File, s *super, g geometry) (*journal, error) {
	if s.u32(sbCompat)&compatJournal == 0 || s.u32(sbJournal) != journalInode {
		return nil, fmt.Errorf("%w: no journal", ErrCorrupt)
	}
	var b [inodeSize]byte
	if _, err := f.ReadAt(b[:], int64(g.blockBitmap(0)+2)*BlockSize+(journalInode-1)*inodeSize); err != nil {
		return nil, err
	}
	j := &journal{f: f, g: g, super: make([]byte, BlockSize), revoked: map[uint64]uint32{}}
	if err := j.parseExtents(b[:], s.seed()); err != nil {
		return nil, err
	}
	if err := j.read(0, j.super); err != nil {
		return nil, err
	}
	return j, j.parseSuper()
}

func (j *journal) parseExtents(b []byte, seed uint32) error {
	le := binary.LittleEndian
	sum := uint32(le.Uint16(b[0x7c:])) | uint32(le.Uint16(b[0x82:]))<<16
	gen := le.Uint32(b[0x64:])
	le.PutUint16(b[0x7c:], 0)
	le.PutUint16(b[0x82:], 0)
	if crc(crc32le(crc32le(seed, journalInode), gen), b) != sum {
		return fmt.Errorf("%w: checksum of the journal's inode", ErrCorrupt)
	}
	e := b[0x28:]
	n, depth := int(le.Uint16(e[2:])), le.Uint16(e[6:])
	if le.Uint16(e) != 0xf30a || n < 1 || n > 4 || depth != 0 {
		return fmt.Errorf("%w: extents of the journal", ErrLayout)
	}
	next := uint32(0)
	for i := range n {
		x := e[12*(i+1):]
		ext := extent{le.Uint32(x), uint32(le.Uint16(x[4:])), uint64(le.Uint16(x[6:]))<<32 | uint64(le.Uint32(x[8:]))}
		if ext.first != next || ext.length == 0 || ext.length > 1<<15 || ext.at > j.g.blocks || uint64(ext.length) > j.g.blocks-ext.at {
			return fmt.Errorf("%w: extents of the journal", ErrLayout)
		}
		next += ext.length
		j.blocks = append(j.blocks, ext)
	}
	j.length = next
	return nil
}

func (j *journal) parseSuper() error {
	b := j.super
	incompat := be.Uint32(b[0x28:])
	length := be.Uint32(b[0x10:])
	j.first = be.Uint32(b[0x14:])
	start := be.Uint32(b[0x1c:])
	switch {
	case be.Uint32(b) != jMagic, be.Uint32(b[4:]) != jSuperV2, be.Uint32(b[0x0c:]) != BlockSize:
		return fmt.Errorf("%w: superblock of the journal", ErrCorrupt)
	case length > j.length, length < 8, j.first < 1, j.first >= length, start >= length, start != 0 && start < j.first:
		return fmt.Errorf("%w: size of the journal", ErrCorrupt)
	case be.Uint32(b[0x20:]) != 0:
		return ErrErrors // the journal was aborted
	case start == 0: // nothing in it, and perhaps never anything was
	case incompat&^(jIncompatRevoke|jIncompat64) != jIncompatCsum3:
		return fmt.Errorf("%w: features of the journal %#x", ErrLayout, incompat)
	case be.Uint32(b[0xfc:]) != journalSum(b):
		return fmt.Errorf("%w: checksum of the journal's superblock", ErrCorrupt)
	}
	j.length = length
	j.seed = crc(^uint32(0), b[0x30:0x40])
	j.wide = incompat&jIncompat64 != 0
	return nil
}

// journalSum is the checksum of a journal's superblock.
func journalSum(b []byte) uint32 {
	var c [1024]byte
	copy(c[:], b)
	be.PutUint32(c[0xfc:], 0)
	return crc(^uint32(0), c[:])
}

// read reads one block of the journal.
func (j *journal) read(block uint32, p []byte) error {
	for _, e := range j.blocks {
		if block >= e.first && block-e.first < e.length {
			_, err := j.f.ReadAt(p, int64(e.at+uint64(block-e.first))*BlockSize)
			return err
		}
	}
	return fmt.Errorf("%w: block %d of the journal", ErrCorrupt, block)
}

// next is the block behind another in the log, which is a ring.
func (j *journal) next(block uint32) uint32 {
	if block++; block >= j.length {
		return j.first
	}
	return block
}

// visitor is what a walk of the log calls. Each may be nil.
type visitor struct {
	data   func(seq uint32, t tag, at uint32) error
	revoke func(seq uint32, block uint64) error
	commit func(seq uint32)
}

// tag says which block of the disk a block of the log is for.
type tag struct {
	block      uint64
	flags, sum uint32
}

// scan finds the end of the log and what was revoked, and checks all of it.
func (j *journal) scan() error {
	buf := make([]byte, BlockSize)
	type pair struct {
		block uint64
		seq   uint32
	}
	var open []pair // of the transaction that is not known to be committed
	records := 0
	j.end = be.Uint32(j.super[0x18:])
	var bad error // in a transaction that may turn out not to be committed
	err := j.walk(nil, visitor{
		data: func(seq uint32, t tag, at uint32) error {
			if err := j.read(at, buf); err != nil {
				return err
			}
			if t.block >= j.g.blocks {
				bad = fmt.Errorf("%w: the journal has block %d of %d", ErrCorrupt, t.block, j.g.blocks)
			} else if crc(j.seqSeed(seq), buf) != t.sum {
				bad = fmt.Errorf("%w: checksum in the journal, block %d", ErrCorrupt, t.block)
			}
			return nil
		},
		revoke: func(seq uint32, block uint64) error {
			if records++; records > maxRevokes {
				return fmt.Errorf("%w: over %d revoked blocks: mount it once", ErrLayout, maxRevokes)
			}
			open = append(open, pair{block, seq})
			return nil
		},
		commit: func(seq uint32) {
			j.end = seq + 1
			for _, p := range open {
				j.revoked[p.block] = p.seq
			}
			open = open[:0]
		},
	}, &bad)
	return err
}

func (j *journal) seqSeed(seq uint32) uint32 {
	var b [4]byte
	be.PutUint32(b[:], seq)
	return crc(j.seed, b[:])
}

// write copies what was committed to its place.
func (j *journal) write() error {
	buf := make([]byte, BlockSize)
	return j.walk(&j.end, visitor{data: func(seq uint32, t tag, at uint32) error {
		if by, ok := j.revoked[t.block]; ok && int32(by-seq) >= 0 {
			return nil
		}
		if err := j.read(at, buf); err != nil {
			return err
		}
		if t.flags&tagEscape != 0 {
			be.PutUint32(buf, jMagic)
		}
		_, err := j.f.WriteAt(buf, int64(t.block)*BlockSize)
		return err
	}}, new(error))
}

// walk goes through the log in order, up to the transaction *end or, when that is
// nil, to the first block that does not continue it. What a visitor
// left in *bad becomes an error when its transaction is committed.
func (j *journal) walk(end *uint32, v visitor, bad *error) error {
	at, seq := be.Uint32(j.super[0x1c:]), be.Uint32(j.super[0x18:])
	if at == 0 {
		return nil
	}
	b := make([]byte, BlockSize)
	for left := j.length; left > 0; {
		if end != nil && seq == *end {
			return nil
		}
		if err := j.read(at, b); err != nil {
			return err
		}
		if be.Uint32(b) != jMagic || be.Uint32(b[8:]) != seq {
			return nil
		}
		left--
		at = j.next(at)
		switch be.Uint32(b[4:]) {
		case jDescriptor:
			if !j.soundTail(b) {
				return nil
			}
			n, err := j.tags(b, seq, at, left, v)
			if err != nil {
				return err
			}
			for range n {
				at = j.next(at)
			}
			left -= n
		case jRevoke:
			if !j.soundTail(b) {
				return nil
			}
			if err := j.revokes(b, seq, v); err != nil {
				return err
			}
		case jCommit:
			sum := be.Uint32(b[16:])
			be.PutUint32(b[16:], 0)
			if crc(j.seed, b) != sum {
				return nil
			}
			if *bad != nil {
				return *bad
			}
			if v.commit != nil {
				v.commit(seq)
			}
			seq++
		default:
			return nil
		}
	}
	return nil
}

// soundTail checks the checksum at the end of a descriptor or revoke block.
func (j *journal) soundTail(b []byte) bool {
	sum := be.Uint32(b[BlockSize-4:])
	be.PutUint32(b[BlockSize-4:], 0)
	return crc(j.seed, b) == sum
}

// tags visits the blocks that a descriptor block announces, which begin at
// block at, and returns how many there are.
func (j *journal) tags(b []byte, seq, at, left uint32, v visitor) (n uint32, err error) {
	for off := jHeader; off+tagSize <= BlockSize-4; off += tagSize {
		t := tag{block: uint64(be.Uint32(b[off:])), flags: be.Uint32(b[off+4:]), sum: be.Uint32(b[off+12:])}
		if j.wide {
			t.block |= uint64(be.Uint32(b[off+8:])) << 32
		}
		if n == left {
			return n, fmt.Errorf("%w: the journal is longer than itself", ErrCorrupt)
		}
		if v.data != nil {
			if err := v.data(seq, t, at); err != nil {
				return n, err
			}
		}
		n++
		at = j.next(at)
		if t.flags&tagLast != 0 {
			break
		}
		if t.flags&tagSameUUID == 0 {
			off += 16
		}
	}
	return n, nil
}

func (j *journal) revokes(b []byte, seq uint32, v visitor) error {
	if v.revoke == nil {
		return nil
	}
	size, n := 4, int(be.Uint32(b[jHeader:]))
	if j.wide {
		size = 8
	}
	for off := jHeader + 4; off+size <= min(n, BlockSize-4); off += size {
		block := uint64(be.Uint32(b[off:]))
		if j.wide {
			block = be.Uint64(b[off:])
		}
		if err := v.revoke(seq, block); err != nil {
			return err
		}
	}
	return nil
}

// finish marks the journal empty, and then the file system as recovered.
func (j *journal) finish() error {
	if err := j.f.Sync(); err != nil {
		return err
	}
	if be.Uint32(j.super[0x1c:]) != 0 {
		be.PutUint32(j.super[0x18:], j.end+1)
		be.PutUint32(j.super[0x1c:], 0)
		be.PutUint32(j.super[0xfc:], journalSum(j.super))
		if _, err := j.f.WriteAt(j.super, int64(j.blocks[0].at)*BlockSize); err != nil {
			return err
		}
		if err := j.f.Sync(); err != nil {
			return err
		}
	}
	s, err := readSuper(j.f)
	if err != nil {
		return err
	}
	s.put32(sbIncompat, s.u32(sbIncompat)&^incompatRecover)
	s.seal()
	if _, err := j.f.WriteAt(s[:], superAt); err != nil {
		return err
	}
	return j.f.Sync()
}
