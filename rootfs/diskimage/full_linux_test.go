package diskimage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostDiskFull writes until the host has no room: a limit on the size of
// files in a process of its own. Writes fail with the host's error, what was
// written before stays, and the image is sound.
func TestHostDiskFull(t *testing.T) {
	const size, limit = 32 << 20, 8 << 20
	for _, f := range []Format{Raw, QCOW2, VMDK} {
		t.Run(string(f), func(t *testing.T) {
			if path := os.Getenv("DISKIMAGE_FULL"); path != "" {
				fillUp(t, path, f, size, limit)
				return
			}
			path := filepath.Join(t.TempDir(), "disk")
			qemu(t, "qemu-img", "create", "-f", string(f), path, fmt.Sprint(size))
			cmd := exec.Command(os.Args[0], "-test.run=^TestHostDiskFull$/^"+string(f)+"$")
			cmd.Env = append(os.Environ(), "DISKIMAGE_FULL="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if f != Raw {
				qemu(t, "qemu-img", "check", "-f", string(f), path)
			}
			written := 0
			img, err := Open(path, f, Options{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			for off := 0; off < size; off += 64 << 10 {
				b := make([]byte, 64<<10)
				if err := img.ReadAtv([][]byte{b}, int64(off)); err != nil {
					t.Fatal(err)
				}
				if b[0] == 1 && b[len(b)-1] == 1 {
					written++
				}
			}
			if written < limit*3/4/(64<<10) {
				t.Errorf("%d pieces of 64 KiB were written", written)
			}
		})
	}
}

// fillUp is the process with the limit.
func fillUp(t *testing.T, path string, f Format, size, limit int64) {
	signal.Ignore(syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(limit), Max: uint64(limit)}); err != nil {
		t.Fatal(err)
	}
	img, err := Open(path, f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64<<10)
	for i := range b {
		b[i] = 1
	}
	failed := 0
	for off := int64(0); off < size; off += int64(len(b)) {
		if err := img.WriteAtv([][]byte{b}, off); err != nil {
			if failed++; !errors.Is(err, syscall.EFBIG) {
				t.Fatal(err)
			}
		}
		if off%(1<<20) == 0 {
			if err := img.Flush(); err != nil && !errors.Is(err, syscall.EFBIG) {
				t.Fatal(err)
			}
		}
	}
	if failed == 0 {
		t.Error("nothing failed")
	}
	// What is there can be written still, and discarding makes room again.
	if err := errors.Join(img.WriteAtv([][]byte{b}, 0), img.Discard(1<<20, 1<<20), img.Flush()); err != nil {
		t.Error(err)
	}
	if f == QCOW2 {
		if err := img.WriteAtv([][]byte{b[:64<<10]}, 20<<20); err != nil {
			t.Errorf("after a discard: %v", err)
		}
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
}
