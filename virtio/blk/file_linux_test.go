package blk

import (
	"os"
	"syscall"
	"testing"
)

func blocks(t testing.TB, f *os.File) int64 {
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks
}
