package blk

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func blocks(t testing.TB, f *os.File) int64 {
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks
}

// adviseDontNeed empties the page cache of a file that was flushed.
func adviseDontNeed(t testing.TB, f *os.File) {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		t.Fatal(err)
	}
}

// A discard of a raw file frees the host's blocks.
func TestDiscardFreesSpace(t *testing.T) {
	f := tempFile(t, 4<<20)
	g := newGuest(t, Config{Backend: newFile(t, f)})
	for i := range 4 {
		wantStatus(t, "write", g.out(typeOut, uint64(i)*2048, randomBytes(1<<20)), statusOK)
	}
	wantStatus(t, "flush", g.out(typeFlush, 0), statusOK)
	before := blocks(t, f)
	wantStatus(t, "discard", g.out(typeDiscard, 0, rangeBytes(0, 4096, 0)), statusOK)
	wantStatus(t, "zero", g.out(typeWriteZeroes, 0, rangeBytes(4096, 2048, 1)), statusOK)
	if after := blocks(t, f); before-after < 2<<20/512 {
		t.Errorf("%d blocks before, %d after", before, after)
	}
	got, _ := g.read(4096, 512)
	if !bytes.Equal(got, make([]byte, 512)) {
		t.Error("not zero")
	}
}

// BenchmarkUncached: random 4 KiB reads that miss the page cache, by depth.
func BenchmarkUncached(b *testing.B) {
	for _, depth := range []int{1, 8, 32} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) {
			const size = 256 << 20
			file := cachedFile(b, size)
			file.Flush()
			adviseDontNeed(b, file.f)
			benchmarkBare(b, file, typeIn, depth, 1, 4096, size/SectorSize)
		})
	}
}
