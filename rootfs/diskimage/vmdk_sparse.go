package diskimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hutchvm/hutch/virtio/blk"
)

var le = binary.LittleEndian

// Numbers of the format (VMware Virtual Disk Format 5.0).
const (
	vmdkMagic = 0x564d444b // "KDMV"

	vmdkRedundant  = 1 << 1
	vmdkZeroGrain  = 1 << 2
	vmdkCompressed = 1 << 16
	vmdkMarkers    = 1 << 17

	vmdkTableLen = 512 // entries of a grain table
	vmdkTable    = vmdkTableLen * 4

	maxDirectory = 1 << 20 // entries
	maxGrain     = 16 << 20
)

// sparseHeader is a checked header; sizes are in bytes.
type sparseHeader struct {
	flags            uint32
	capacity, grain  int64
	descAt, descLen  int64
	redundant, first int64 // grain directories; redundant is 0 when there is none
	tables           int64
}

func parseSparse(b [512]byte, fileSize int64) (*sparseHeader, error) {
	h := &sparseHeader{flags: le.Uint32(b[8:])}
	version := le.Uint32(b[4:])
	if version < 1 || version > 3 {
		return nil, fmt.Errorf("%w: vmdk version %d", ErrUnsupported, version)
	}
	if h.flags&(vmdkCompressed|vmdkMarkers) != 0 || le.Uint16(b[77:]) != 0 {
		return nil, fmt.Errorf("%w: streamOptimized vmdk: convert it with qemu-img convert", ErrUnsupported)
	}
	var err error
	sectors := func(what string, at int, most int64) int64 {
		v := le.Uint64(b[at:])
		if v > uint64(most)/512 {
			err = errors.Join(err, fmt.Errorf("%w: %s of %d sectors", ErrCorrupt, what, v))
			return 0
		}
		return int64(v) * 512
	}
	h.capacity = sectors("capacity", 12, 1<<62)
	h.grain = sectors("grain size", 20, maxGrain)
	h.descAt = sectors("descriptor offset", 28, fileSize)
	h.descLen = sectors("descriptor size", 36, fileSize)
	h.redundant = sectors("redundant grain directory", 48, fileSize)
	h.first = sectors("grain directory", 56, fileSize)
	switch {
	case err != nil:
		return nil, err
	case b[73] != '\n' || b[74] != ' ' || b[75] != '\r' || b[76] != '\n':
		return nil, fmt.Errorf("%w: line ends were converted", ErrCorrupt)
	case h.grain < 4096 || h.grain&(h.grain-1) != 0:
		return nil, fmt.Errorf("%w: grains of %d bytes", ErrCorrupt, h.grain)
	case le.Uint32(b[44:]) != vmdkTableLen:
		return nil, fmt.Errorf("%w: grain tables of %d entries", ErrUnsupported, le.Uint32(b[44:]))
	case h.capacity == 0:
		return nil, fmt.Errorf("%w: no capacity", ErrCorrupt)
	case h.descLen == 0 || h.descLen > maxDescriptor || h.descAt == 0 || h.descLen > fileSize-h.descAt:
		return nil, fmt.Errorf("%w: descriptor of %d bytes at %d", ErrCorrupt, h.descLen, h.descAt)
	}
	if h.flags&vmdkRedundant == 0 {
		h.redundant = 0
	}
	perTable := h.grain * vmdkTableLen
	h.tables = (h.capacity-1)/perTable + 1
	if h.tables > maxDirectory {
		return nil, fmt.Errorf("%w: grain directory of %d entries", ErrUnsupported, h.tables)
	}
	return h, nil
}

// sparse is an extent whose grains are allocated when they are written.
//
// Unlike qcow2 it has no counts: a grain is taken at the end of the file, its data
// is written, and then both tables say so. Flush waits for all. After a
// crash a table may name a grain whose data is not there, as on a real disk a
// sector that was not flushed; the other table, if it is older, names none.
type sparse struct {
	h    *sparseHeader
	f    *os.File
	file *blk.File

	mu     sync.RWMutex // as in qcow2
	end    int64        // of the file, whole grains from where data can be
	first  []uint32     // sectors of the tables
	second []uint32     // of their copies, or nil
	tables map[int][]byte
	tmu    sync.Mutex // guards tables
	meta   int64      // no grain begins before here
}

// maxTables bounds the tables in memory: 512 map 16 GiB of grains of 64 KiB.
const maxTables = 512

func newSparse(f *os.File, h *sparseHeader, fileSize int64, ro bool) (*sparse, error) {
	b, err := blk.NewFile(f)
	if err != nil {
		return nil, err
	}
	s := &sparse{h: h, f: f, file: b, end: fileSize, tables: map[int][]byte{}}
	if s.first, err = s.directory(h.first); err != nil {
		return nil, err
	}
	if h.redundant != 0 {
		if s.second, err = s.directory(h.redundant); err != nil {
			return nil, err
		}
	}
	if ro {
		return s, nil
	}
	// Tables that two entries share would let one part of the disk write another,
	// or the directory.
	seen := map[uint32]bool{}
	for i := range s.first {
		for _, dir := range [][]uint32{s.first, s.second} {
			if dir == nil {
				continue
			}
			if dir[i] == 0 {
				return nil, fmt.Errorf("%w: writing a vmdk whose grain tables are not allocated", ErrUnsupported)
			}
			for k := dir[i]; k < dir[i]+vmdkTable/512; k++ {
				if seen[k] {
					return nil, fmt.Errorf("%w: grain tables overlap in sector %d", ErrCorrupt, k)
				}
				seen[k] = true
			}
		}
	}
	return s, nil
}

// directory reads a grain directory and checks where its tables are.
func (s *sparse) directory(at int64) ([]uint32, error) {
	n := s.h.tables * 4
	if at < 512 || n > s.end-at {
		return nil, fmt.Errorf("%w: grain directory of %d bytes at %d", ErrCorrupt, n, at)
	}
	b := make([]byte, n)
	if _, err := s.f.ReadAt(b, at); err != nil {
		return nil, err
	}
	dir := make([]uint32, s.h.tables)
	s.meta = max(s.meta, at+n, s.h.descAt+s.h.descLen)
	for i := range dir {
		dir[i] = le.Uint32(b[4*i:])
		place := int64(dir[i]) * 512
		if dir[i] == 0 {
			continue
		}
		if place < 512 || place > s.end-vmdkTable {
			return nil, fmt.Errorf("%w: grain table at %d in a file of %d bytes", ErrCorrupt, place, s.end)
		}
		s.meta = max(s.meta, place+vmdkTable)
	}
	return dir, nil
}

// table returns grain table i, nil if there is none.
func (s *sparse) table(i int) ([]byte, error) {
	if s.first[i] == 0 {
		return nil, nil
	}
	s.tmu.Lock()
	defer s.tmu.Unlock()
	if t := s.tables[i]; t != nil {
		return t, nil
	}
	t := make([]byte, vmdkTable)
	if _, err := s.f.ReadAt(t, int64(s.first[i])*512); err != nil {
		return nil, err
	}
	for k := range s.tables {
		if len(s.tables) < maxTables {
			break
		}
		delete(s.tables, k) // all are on disk
	}
	s.tables[i] = t
	return t, nil
}

// grainAt is where the bytes from off are in the file, 0 when they are zero, and
// how many of n are together.
func (s *sparse) grainAt(off, n int64) (at, k int64, err error) {
	grain := off / s.h.grain
	in := off % s.h.grain
	n = min(n, s.h.grain-in)
	t, err := s.table(int(grain / vmdkTableLen))
	if err != nil || t == nil {
		return 0, n, err
	}
	e := le.Uint32(t[4*(grain%vmdkTableLen):])
	if e == 0 || e == 1 && s.h.flags&vmdkZeroGrain != 0 {
		return 0, n, nil
	}
	at = int64(e) * 512
	if at < s.meta || at >= s.end {
		return 0, n, fmt.Errorf("%w: grain at %d in a file of %d bytes", ErrCorrupt, at, s.end)
	}
	return at + in, n, nil
}

// ReadAtv reads grain by grain.
func (s *sparse) ReadAtv(bufs [][]byte, off int64) error {
	v, n := newVec(bufs)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for n > 0 {
		at, k, err := s.grainAt(off, n)
		if err != nil {
			return err
		}
		list := v.take(k)
		switch {
		case at == 0:
			zero(list)
		case k > s.end-at: // the last grain of a file that was cut
			return fmt.Errorf("%w: grain at %d in a file of %d bytes", ErrCorrupt, at, s.end)
		default:
			if err := s.file.ReadAtv(list, at); err != nil {
				return err
			}
		}
		off, n = off+k, n-k
	}
	return nil
}

// WriteAtv writes to grains that are there and takes new ones.
func (s *sparse) WriteAtv(bufs [][]byte, off int64) error {
	v, n := newVec(bufs)
	for n > 0 {
		k, done, err := s.writeInPlace(v, off, n)
		if err == nil && !done {
			err = s.writeNew(v, off, k)
		}
		if err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

func (s *sparse) writeInPlace(v *vec, off, n int64) (k int64, done bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at, k, err := s.grainAt(off, n)
	if err != nil || at == 0 {
		return k, false, err
	}
	return k, true, s.file.WriteAtv(v.take(k), at)
}

// writeNew writes n bytes, within one grain, to a grain of their own.
func (s *sparse) writeNew(v *vec, off, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, _, err := s.grainAt(off, n); err != nil {
		return err
	} else if at != 0 {
		return s.file.WriteAtv(v.take(n), at)
	}
	place := (s.end + s.h.grain - 1) / s.h.grain * s.h.grain
	if place/512 > 1<<32-1 {
		return fmt.Errorf("%w: vmdk of over 2 TiB", ErrUnsupported)
	}
	if err := s.f.Truncate(place + s.h.grain); err != nil {
		return err
	}
	if err := s.file.WriteAtv(v.take(n), place+off%s.h.grain); err != nil {
		return errors.Join(err, s.f.Truncate(s.end))
	}
	grain := off / s.h.grain
	i, e := int(grain/vmdkTableLen), 4*(grain%vmdkTableLen)
	t, err := s.table(i)
	if err != nil {
		return err
	}
	s.end = place + s.h.grain
	var b [4]byte
	le.PutUint32(b[:], uint32(place/512))
	for _, dir := range [][]uint32{s.second, s.first} {
		if dir == nil {
			continue
		}
		if _, err := s.f.WriteAt(b[:], int64(dir[i])*512+e); err != nil {
			return err
		}
	}
	copy(t[e:], b[:])
	return nil
}

// each calls f for each piece of a range that has a place in the file.
func (s *sparse) each(off, n int64, f func(at, n int64) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for n > 0 {
		at, k, err := s.grainAt(off, n)
		if err == nil && at != 0 {
			err = f(at, k)
		}
		if err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Discard makes holes where grains are; the grains stay.
func (s *sparse) Discard(off, n int64) error { return s.each(off, n, s.file.Discard) }

// WriteZeroes makes grains zero; those that are not there are.
func (s *sparse) WriteZeroes(off, n int64, unmap bool) error {
	return s.each(off, n, func(at, n int64) error { return s.file.WriteZeroes(at, n, unmap) })
}

// Flush waits for the disk.
func (s *sparse) Flush() error { return s.file.Flush() }

// Size is that of the disk.
func (s *sparse) Size() int64 { return s.h.capacity }

// close does nothing: the file is the image's.
func (s *sparse) close() error { return nil }
