package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// openTest opens the kernel in dir and closes it at the end of the test.
func openTest(t testing.TB, dir string) *Image {
	t.Helper()
	img, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	})
	return img
}

// TestOpen compares the image with what the program headers of the ELF file say.
func TestOpen(t *testing.T) {
	img := openTest(t, t.TempDir())
	vmlinux, err := ELF()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		t.Fatal(err)
	}
	if img.Entry != f.Entry || img.Version != Version() {
		t.Errorf("entry %#x, version %q", img.Entry, img.Version)
	}
	want := make([]byte, img.Size)
	base, end := ^uint64(0), uint64(0)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if _, err := io.ReadFull(p.Open(), want[p.Paddr-img.Base:][:p.Filesz]); err != nil {
			t.Fatal(err)
		}
		base, end = min(base, p.Paddr), max(end, p.Paddr+p.Memsz)
	}
	if got := readAll(t, img); !bytes.Equal(got, want) {
		t.Error("the image differs from the segments of the ELF file")
	}
	if img.Base != base || img.MemSize != roundUp(end-base) {
		t.Errorf("image at %#x, %#x long; the segments lie from %#x to %#x", img.Base, img.MemSize, base, end)
	}
}

func readAll(t *testing.T, img *Image) []byte {
	t.Helper()
	st, err := img.File.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() != img.Size || st.Mode().Perm() != 0o444 {
		t.Errorf("file of %d bytes, mode %v; image of %d bytes", st.Size(), st.Mode(), img.Size)
	}
	b := make([]byte, img.Size)
	if _, err := img.File.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	var images [6]*Image
	var wg sync.WaitGroup
	for i := range images {
		wg.Go(func() {
			img, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { img.Close() })
			images[i] = img
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	want := readAll(t, images[0])
	for _, img := range images[1:] {
		if !bytes.Equal(readAll(t, img), want) {
			t.Error("two openers got different images")
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("in the cache: %v %v", entries, err)
	}
}

// TestOpenRepairs damages a cache entry; the next Open must not use it.
func TestOpenRepairs(t *testing.T) {
	dir := t.TempDir()
	img := openTest(t, dir)
	want := readAll(t, img)
	entries, err := filepath.Glob(filepath.Join(dir, "vmlinux-*"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("in the cache: %v %v", entries, err)
	}
	path := entries[0]
	tests := []struct {
		name   string
		damage func() error
	}{
		{"truncated", func() error { return os.Truncate(path, img.Size-1) }},
		{"empty", func() error { return os.Truncate(path, 0) }},
		{"longer", func() error { return os.Truncate(path, img.Size+4096) }},
		{"written to", func() error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("tampered"), 4096)
			return errors.Join(err, f.Close())
		}},
		{"removed", func() error { return os.Remove(path) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := errors.Join(os.Chmod(path, 0o644), tt.damage()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(readAll(t, openTest(t, dir)), want) {
				t.Error("a damaged image was used")
			}
		})
	}
}

func TestOpenError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(file)
	var oe *OpError
	if !errors.As(err, &oe) || oe.Op != "open" || strings.Count(err.Error(), "kernel: ") != 1 {
		t.Errorf("error %v, want one OpError", err)
	}
}

func TestCloseTwice(t *testing.T) {
	img, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(img.Close(), img.Close()); err != nil {
		t.Error(err)
	}
}

func TestDigestConstants(t *testing.T) {
	for _, d := range []string{imageDigest, elfDigest, flatDigest} {
		if b, err := hex.DecodeString(d); err != nil || len(b) != 32 {
			t.Errorf("%q is not a SHA-256: %v", d, err)
		}
	}
}

// BenchmarkOpen is what every start of a machine pays.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	openTest(b, dir)
	for b.Loop() {
		img, err := Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		img.Close()
	}
}

// BenchmarkOpenCold is what the first start on a host pays.
func BenchmarkOpenCold(b *testing.B) {
	for b.Loop() {
		img, err := Open(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		img.Close()
	}
}
