package blk

import (
	"os"
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
