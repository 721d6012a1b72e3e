package ext4

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Info is what a superblock says.
type Info struct {
	UUID      [16]byte
	Label     string // any bytes but NUL
	Size      int64  // bytes of the file system, at most those of the disk
	BlockSize int
	// NeedsRecovery: it was not unmounted; its journal holds what is newer.
	NeedsRecovery bool
	// HasErrors: Linux noticed that it is damaged.
	HasErrors bool
	// Growable: its layout is the one that Make makes and Grow understands.
	Growable bool
}

// Probe reads the superblock of the file system at the start of a disk of size
// bytes. It is an error, ErrNotExt4, when there is none, and ErrCorrupt when its
// numbers are impossible; a nil error does not mean that the rest is sound.
func Probe(r io.ReaderAt, size int64) (Info, error) {
	s, err := readSuper(r)
	var info Info
	if err == nil {
		info, err = s.info(size)
	}
	if err != nil {
		return Info{}, &OpError{Op: "probe", Err: err}
	}
	return info, nil
}

func readSuper(r io.ReaderAt) (*super, error) {
	var s super
	n, err := r.ReadAt(s[:], superAt)
	switch {
	case n < superSize && (err == nil || err == io.EOF), n == superSize && s.u16(sbMagic) != magic:
		return nil, ErrNotExt4
	case n < superSize:
		return nil, err
	}
	return &s, nil
}

func (s *super) info(size int64) (Info, error) {
	label, _, _ := bytes.Cut(s[sbLabel:sbLabel+16], []byte{0})
	i := Info{
		Label:         strings.ToValidUTF8(string(label), "?"),
		NeedsRecovery: s.u32(sbIncompat)&incompatRecover != 0,
		HasErrors:     s.u16(sbState)&stateErrors != 0,
	}
	copy(i.UUID[:], s[sbUUID:])
	if s.u32(sbLogBlock) > 6 {
		return i, fmt.Errorf("%w: block size 2^(10+%d)", ErrCorrupt, s.u32(sbLogBlock))
	}
	i.BlockSize = 1024 << s.u32(sbLogBlock)
	blocks := uint64(s.u32(sbBlocks))
	if s.u32(sbIncompat)&incompat64 != 0 {
		blocks = s.split(sbBlocks, sbBlocksHi)
	}
	if size < 0 || blocks == 0 || blocks > uint64(size)/uint64(i.BlockSize) {
		return i, fmt.Errorf("%w: %d blocks of %d bytes on a disk of %d bytes", ErrCorrupt, blocks, i.BlockSize, size)
	}
	i.Size = int64(blocks) * int64(i.BlockSize)
	if s.u32(sbROCompat)&roCsum != 0 && !s.sealed() {
		return i, fmt.Errorf("%w: checksum of the superblock", ErrCorrupt)
	}
	i.Growable = s.ours() == nil
	return i, nil
}

// ours checks that the layout is the one of this package.
func (s *super) ours() error {
	is := func(ok bool, what string) error {
		if !ok {
			return fmt.Errorf("%w: %s", ErrLayout, what)
		}
		return nil
	}
	for _, err := range []error{
		is(s.u32(sbRevision) == 1, "revision"),
		is(s.u32(sbCompat)|compatJournal == compatOurs, "compatible features"),
		is(s.u32(sbIncompat)&^incompatRecover == incompatOurs, "incompatible features"),
		is(s.u32(sbROCompat) == roOurs, "read-only compatible features"),
		is(s.u32(sbLogBlock) == 2 && s.u32(sbLogCluster) == 2, "block size"),
		is(s.u32(sbFirstBlock) == 0 && s.u32(sbFirstMeta) == 0, "first block"),
		is(s.u32(sbGroupBlocks) == groupBlocks && s.u32(sbGroupClust) == groupBlocks, "blocks per group"),
		is(s.u16(sbInodeSize) == inodeSize && s.u16(sbDescSize) == descSize, "inode or descriptor size"),
		is(s[sbCsumType] == csumCRC32C, "checksum type"),
	} {
		if err != nil {
			return err
		}
	}
	blocks, inodes := s.split(sbBlocks, sbBlocksHi), s.u32(sbGroupInodes)
	if blocks < MinSize/BlockSize || blocks > MaxSize/BlockSize || inodes < 16 || inodes > maxInodes || inodes%16 != 0 {
		return fmt.Errorf("%w: %d blocks, %d inodes in a group", ErrLayout, blocks, inodes)
	}
	g := geometry{blocks: blocks, inodes: inodes}
	if g.trimmed() != g || s.u32(sbInodes) != inodes*g.groups() {
		return fmt.Errorf("%w: %d blocks, %d inodes", ErrLayout, blocks, s.u32(sbInodes))
	}
	if g.size(0) < g.overhead(0) {
		return fmt.Errorf("%w: %d inodes in %d blocks", ErrLayout, inodes, blocks)
	}
	return nil
}
