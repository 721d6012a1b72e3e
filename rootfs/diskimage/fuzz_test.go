package diskimage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// change is eight bytes somewhere in the file.
func change(b []byte, at uint32, v uint64) {
	if len(b) > 8 {
		be.PutUint64(b[int(at)%(len(b)-8):], v)
	}
}

// use does what a guest may do with whatever opened.
func use(t *testing.T, b []byte, f Format) {
	path := filepath.Join(t.TempDir(), "disk")
	for _, ro := range []bool{true, false} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := Open(path, f, Options{ReadOnly: ro, AllowBacking: true})
		if err != nil {
			continue
		}
		size := img.Size()
		buf := make([]byte, 200<<10)
		for _, off := range []int64{0, 64 << 10, size / 2 &^ 511, size - 512} {
			n := min(int64(len(buf)), size-off)
			if off < 0 || n <= 0 {
				continue
			}
			_ = img.ReadAtv([][]byte{buf[:n]}, off)
			_ = img.WriteAtv([][]byte{buf[:n]}, off)
			_ = img.WriteZeroes(off, n, off == 0)
			_ = img.Discard(off, n/2&^511)
			_ = img.Flush()
			_ = img.WriteAtv([][]byte{buf[:512]}, off)
		}
		_ = img.Close()
		if fi, err := os.Stat(path); err != nil || fi.Size() > int64(len(b))+64<<20 {
			t.Errorf("the file has %d bytes, %v", fi.Size(), err)
		}
	}
}

func FuzzQCOW2(f *testing.F) {
	path := filepath.Join(f.TempDir(), "disk")
	if err := Create(path, QCOW2, 4<<20); err != nil {
		f.Fatal(err)
	}
	img, err := Open(path, QCOW2, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for off := int64(0); off < 1<<20; off += 128 << 10 {
		if err := img.WriteAtv([][]byte{bytes.Repeat([]byte{1}, 64<<10)}, off); err != nil {
			f.Fatal(err)
		}
	}
	if err := img.Close(); err != nil {
		f.Fatal(err)
	}
	valid, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	const table = 4 << 16 // the first L2 table
	for _, c := range []struct {
		at uint32
		v  uint64
	}{
		{0, 0}, {24, 1 << 60}, {20, 9}, {32, 0xffffffff}, {40, 1 << 40}, {48, 0}, {56, 1 << 60}, {60, 0xffffffff00000000}, {72, 31}, {96, 6 << 32}, {8, 1 << 62},
		{3 << 16, entryCopied | 0x30000}, {3 << 16, entryCopied | 1<<50}, {3 << 16, entryCopied},
		{table, entryCopied | 0x30000}, {table, entryCopied | 0x40000}, {table, 1 << 54}, {table, entryCompressed | 0x3fff<<48 | 70000}, {table + 8, entryZero | 0x30000}, {table + 8, 3},
		{1 << 16, 0x20200}, {1 << 16, 1 << 50}, {1 << 16, 0x30000}, {2 << 16, 0}, {2<<16 + 8, 0}, {2<<16 + 8, ^uint64(0)},
	} {
		f.Add(c.at, c.v, uint32(len(valid)-9), uint64(0))
	}
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64) {
		b := bytes.Clone(valid)
		change(b, at1, v1)
		change(b, at2, v2)
		use(t, b, QCOW2)
	})
}

func FuzzVMDK(f *testing.F) {
	// A sparse image by hand: header, descriptor, a directory, a table, two grains.
	valid := make([]byte, 64<<10)
	le.PutUint32(valid, vmdkMagic)
	le.PutUint32(valid[4:], 1)
	le.PutUint32(valid[8:], 1|vmdkRedundant)
	for at, v := range map[int]uint64{12: 256, 20: 16, 28: 1, 36: 2, 48: 3, 56: 4, 64: 32} {
		le.PutUint64(valid[at:], v)
	}
	le.PutUint32(valid[44:], vmdkTableLen)
	copy(valid[73:], "\n \r\n")
	copy(valid[512:], "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 256 SPARSE \"disk\"\n")
	le.PutUint32(valid[3*512:], 8)
	le.PutUint32(valid[4*512:], 16)
	for _, table := range []int{8, 16} {
		le.PutUint32(valid[table*512:], 64)
		le.PutUint32(valid[table*512+8:], 80)
	}
	for _, c := range []struct {
		at uint32
		v  uint64
	}{{12, 1 << 60}, {20, 0}, {28, 1 << 50}, {44, 0}, {48, 1 << 40}, {3 * 512, 0xffffffff}, {4 * 512, 0x08000000}, {8 * 512, 1}, {16 * 512, 0xffffffff}, {70, 0}, {512, 0}, {60000, 0}} {
		f.Add(c.at, c.v, uint32(65000), uint64(0))
	}
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64) {
		b := bytes.Clone(valid)
		change(b, at1, v1)
		change(b, at2, v2)
		use(t, b, VMDK)
	})
}

func FuzzDescriptor(f *testing.F) {
	for _, line := range []string{`RW 8 FLAT "disk" 0`, `RW 8 ZERO`, `RW 99999999999999999999 FLAT "disk" 0`, `RW 8 FLAT "../x" 0`, `RW 8 FLAT "disk`, `RW 0 FLAT "disk" 0`, `RDONLY 8 FLAT "disk" 0`, `RW 8 FLAT "disk" 999999999999`, `RW 8 VMFS "disk" 0`} {
		f.Add([]byte(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n%s\n", line)))
	}
	f.Fuzz(func(t *testing.T, b []byte) { use(t, b, VMDK) })
}
