package ext4

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzGrow changes some bytes of the metadata of a small file system and of its
// journal: Probe and Grow must return, and not with more than they were given.
func FuzzGrow(f *testing.F) {
	f.Add(uint32(superAt+sbBlocks), uint64(1<<40), uint32(superAt+sbGroupInodes), uint64(3), true)
	f.Add(uint32(BlockSize), uint64(0), uint32(BlockSize+64), uint64(1), true)
	f.Add(uint32(superAt+sbIncompat), uint64(incompatOurs|incompatRecover), uint32(0), uint64(0), true)
	f.Add(uint32(superAt+sbIncompat), uint64(incompatOurs|incompatRecover), uint32(1073*BlockSize), uint64(0), false)
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64, seal bool) {
		const size = 16 << 20
		disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		if err := Make(disk, size, Options{}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			at uint32
			v  uint64
		}{{at1, v1}, {at2, v2}} {
			var b [8]byte
			be.PutUint64(b[:], c.v)
			for i := range 4 {
				b[i], b[7-i] = b[7-i], b[i]
			}
			if _, err := disk.WriteAt(b[:], int64(c.at%(size-8))); err != nil {
				t.Fatal(err)
			}
		}
		if seal {
			if s, err := readSuper(disk); err == nil {
				s.seal()
				if _, err := disk.WriteAt(s[:], superAt); err != nil {
					t.Fatal(err)
				}
			}
		}
		info, err := Probe(disk, size)
		if err == nil && info.Size > size {
			t.Errorf("%+v", info)
		}
		_ = Grow(disk, 2*size)
		if fi, err := disk.Stat(); err != nil || fi.Size() > 2*size {
			t.Errorf("file has %d bytes, %v", fi.Size(), err)
		}
	})
}

// FuzzJournal gives the walk of the log arbitrary blocks, with checksums that fit.
func FuzzJournal(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 1}, byte(jDescriptor), byte(jCommit), true)
	f.Add([]byte{0, 0, 0, 255, 0, 0, 0, 0}, byte(jRevoke), byte(jCommit), false)
	f.Fuzz(func(t *testing.T, body []byte, type1, type2 byte, wide bool) {
		const size = 16 << 20
		disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		if err := Make(disk, size, Options{}); err != nil {
			t.Fatal(err)
		}
		g := newGeometry(size)
		s, err := readSuper(disk)
		if err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(disk, s, g)
		if err != nil {
			t.Fatal(err)
		}
		features := uint32(jIncompatCsum3 | jIncompatRevoke)
		if wide {
			features |= jIncompat64
		}
		be.PutUint32(j.super[0x28:], features)
		be.PutUint32(j.super[0x1c:], 1)
		be.PutUint32(j.super[0xfc:], journalSum(j.super))
		if err := j.parseSuper(); err != nil {
			t.Fatal(err)
		}
		log := j.super
		for _, typ := range []byte{type1, type2, jCommit} {
			b := make([]byte, BlockSize)
			copy(b[jHeader:], body)
			be.PutUint32(b, jMagic)
			be.PutUint32(b[4:], uint32(typ))
			be.PutUint32(b[8:], 1)
			if typ == jCommit {
				be.PutUint32(b[16:], 0)
				be.PutUint32(b[16:], crc(j.seed, b))
			} else {
				be.PutUint32(b[BlockSize-4:], 0)
				be.PutUint32(b[BlockSize-4:], crc(j.seed, b))
			}
			log = append(log, b...)
		}
		if _, err := disk.WriteAt(log, int64(j.blocks[0].at)*BlockSize); err != nil {
			t.Fatal(err)
		}
		_ = replay(disk, s, g)
		if fi, err := disk.Stat(); err != nil || fi.Size() > size {
			t.Errorf("file has %d bytes, %v", fi.Size(), err)
		}
	})
}
