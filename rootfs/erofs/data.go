package erofs

import (
	"bytes"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
)

const (
	dataBuffer = 1 << 20
	pieceBits  = 16 // data is looked at, and holes are found, in pieces of 64 KiB
	pieceSize  = 1 << pieceBits
	maxChunks  = 1 << 16 // of one file: larger files have larger chunks
)

var (
	zeros      [pieceSize]byte
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// data is the part of the image that holds the contents of files: it is written
// from block 1 on, strictly forwards.
type data struct {
	out    *os.File
	at     int64 // where buf begins in out
	buf    []byte
	sum    uint32 // over all that was written
	rest   []byte // a piece set aside
	chunks []uint32
	freed  []extent // blocks that nobody uses any more
	holes  int64    // bytes punched

	makeHole func(f *os.File, off, n int64) (ok bool) // punch, but in a test
}

type extent struct{ start, blocks uint32 }

func (d *data) pos() int64 { return d.at + int64(len(d.buf)) }

func (d *data) flush() error {
	if len(d.buf) == 0 {
		return nil
	}
	if _, err := d.out.WriteAt(d.buf, d.at); err != nil {
		return err
	}
	d.sum = crc32.Update(d.sum, castagnoli, d.buf)
	d.at += int64(len(d.buf))
	d.buf = d.buf[:0]
	return nil
}

// space returns room for n bytes at the end of the buffer, n at most pieceSize.
func (d *data) space(n int) ([]byte, error) {
	if len(d.buf)+n > cap(d.buf) {
		if err := d.flush(); err != nil {
			return nil, err
		}
	}
	return d.buf[len(d.buf):][:n], nil
}

func (d *data) commit(n int) { d.buf = d.buf[:len(d.buf)+n] }

// pad fills the last block.
func (d *data) pad() {
	n := -len(d.buf) & (BlockSize - 1)
	d.buf = append(d.buf, zeros[:n]...) // the buffer's size is a multiple of a block
}

// skip leaves n zeros out.
func (d *data) skip(n int64) error {
	if err := d.flush(); err != nil {
		return err
	}
	d.at += n
	return nil
}

// chunkBits returns the size of chunks of a file, as bits above a block's.
func chunkBits(size int64) uint8 {
	bits := uint8(pieceBits)
	for size>>bits >= maxChunks {
		bits++
	}
	return bits - blockBits
}

// store writes size bytes of r, and says in n where they are. The last bytes may go
// to the spool, when room for them behind the inode is tail or more.
func (d *data) store(r io.Reader, size int64, n *inode, tail int, s *spool) error {
	first := d.pos() / BlockSize
	if (d.pos()+size)/BlockSize >= math.MaxUint32-1 {
		return ErrRange
	}
	bits := chunkBits(size)
	chunk := int64(BlockSize) << bits
	d.chunks = d.chunks[:0]
	sparse := false
	for left := size; left > 0; {
		here := min(left, chunk)
		left -= here
		begin := d.pos()
		skipped := int64(0) // zeros at the end of what is written of this chunk
		full := false       // the chunk has data
		for here > 0 {
			p, err := d.space(int(min(here, pieceSize)))
			if err != nil {
				return err
			}
			if _, err := io.ReadFull(r, p); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return err
			}
			here -= int64(len(p))
			if bytes.Equal(p, zeros[:len(p)]) {
				skipped += int64(len(p))
				continue
			}
			if skipped > 0 {
				d.rest = append(d.rest[:0], p...)
				if err := d.skip(skipped); err != nil {
					return err
				}
				if p, err = d.space(len(d.rest)); err != nil {
					return err
				}
				copy(p, d.rest)
				skipped = 0
			}
			d.commit(len(p))
			full = true
		}
		if !full {
			d.chunks = append(d.chunks, nullBlock)
			sparse = true
			continue
		}
		d.chunks = append(d.chunks, uint32(begin/BlockSize))
		if skipped > 0 {
			if err := d.skip(align(skipped, BlockSize)); err != nil {
				return err
			}
		}
	}
	n.size = size
	n.start = uint32(first)
	if sparse {
		d.pad()
		n.layout, n.bits = layoutChunked, bits
		d.rest = d.rest[:0]
		for _, c := range d.chunks {
			d.rest = le.AppendUint32(d.rest, c)
		}
		if err := n.spool(s, d.rest); err != nil {
			return err
		}
	} else if rem := int(size % BlockSize); rem > 0 && rem <= tail && len(d.buf) >= rem {
		n.layout = layoutInline
		cut := len(d.buf) - rem
		if err := n.spool(s, d.buf[cut:]); err != nil {
			return err
		}
		d.buf = d.buf[:cut]
	} else {
		d.pad()
	}
	n.blocks = uint32(d.pos()/BlockSize - first)
	return nil
}

// spool keeps what will stand behind the inode.
func (n *inode) spool(s *spool, p []byte) (err error) {
	n.payload, err = s.add(p)
	n.paylen = uint32(len(p))
	return err
}

// free remembers blocks that nobody uses any more.
func (d *data) free(start, blocks uint32) {
	if blocks == 0 {
		return
	}
	if n := len(d.freed); n > 0 && d.freed[n-1].start+d.freed[n-1].blocks == start {
		d.freed[n-1].blocks += blocks
		return
	}
	d.freed = append(d.freed, extent{start, blocks})
}

// punch gives the space of freed blocks back: they read as zeros, also where the
// file system has no holes, so that the image does not depend on that.
func (d *data) punch() error {
	if err := d.flush(); err != nil {
		return err
	}
	slices.SortFunc(d.freed, func(a, b extent) int { return int(int64(a.start) - int64(b.start)) })
	for i := 0; i < len(d.freed); {
		e := d.freed[i]
		for i++; i < len(d.freed) && d.freed[i].start == e.start+e.blocks; i++ {
			e.blocks += d.freed[i].blocks
		}
		off, n := int64(e.start)*BlockSize, int64(e.blocks)*BlockSize
		d.holes += n
		if d.makeHole(d.out, off, n) {
			continue
		}
		for ; n > 0; n -= pieceSize {
			if _, err := d.out.WriteAt(zeros[:min(n, pieceSize)], off); err != nil {
				return err
			}
			off += pieceSize
		}
	}
	d.freed = d.freed[:0]
	return nil
}
