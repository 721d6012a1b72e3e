package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// TestOpenContent compares the image with what the ELF file's program headers say.
func TestOpenContent(t *testing.T) {
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
	var end uint64
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if _, err := io.ReadFull(p.Open(), want[p.Paddr-img.Base:][:p.Filesz]); err != nil {
			t.Fatal(err)
		}
		end = max(end, p.Paddr+p.Memsz)
	}
	got := make([]byte, img.Size)
	if _, err := img.File.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the image differs from the segments of the ELF file")
	}
	if img.MemSize != roundUp(end-img.Base) {
		t.Errorf("memory size %d, the last segment ends at %d", img.MemSize, end-img.Base)
	}
	if err := Verify(img); err != nil {
		t.Error(err)
	}
}

func TestOpenTwiceSharesTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	a, b := openTest(t, dir), openTest(t, dir)
	sa, err := a.File.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sb, err := b.File.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(sa, sb) {
		t.Error("the second Open wrote the entry again")
	}
	if sa.Mode().Perm() != 0o444 {
		t.Errorf("mode %v", sa.Mode())
	}
}

func TestOpenConcurrently(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			img, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer img.Close()
			if err := Verify(img); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{entryName()}, names); diff != "" {
		t.Errorf("cache directory (-want +got):\n%s", diff)
	}
}

// TestOpenRepairs damages an entry in every way that Open promises to notice.
func TestOpenRepairs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, entryName())
	openTest(t, dir)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	trailerAt := len(good) - trailerSize
	tests := []struct {
		name   string
		damage func(b []byte) []byte
		mode   os.FileMode
	}{
		{"truncated by a byte", func(b []byte) []byte { return b[:len(b)-1] }, 0o444},
		{"truncated by a page", func(b []byte) []byte { return b[:trailerAt] }, 0o444},
		{"only a trailer", func(b []byte) []byte { return b[trailerAt:] }, 0o444},
		{"a page lost", func(b []byte) []byte { return b[pageSize:] }, 0o444},
		{"empty", func([]byte) []byte { return nil }, 0o444},
		{"longer", func(b []byte) []byte { return append(b, make([]byte, pageSize)...) }, 0o444},
		{"trailer magic", func(b []byte) []byte { b[trailerAt] ^= 1; return b }, 0o444},
		{"trailer entry point", func(b []byte) []byte { b[trailerAt+104] ^= 1; return b }, 0o444},
		{"trailer checksum", func(b []byte) []byte { b[trailerAt+trailerBody] ^= 1; return b }, 0o444},
		{"other kernel", func(b []byte) []byte {
			tr, err := decodeTrailer(b[trailerAt:])
			if err != nil {
				t.Fatal(err)
			}
			tr.source[0] ^= 1
			copy(b[trailerAt:], tr.encode())
			return b
		}, 0o444},
		{"writable", func(b []byte) []byte { return b }, 0o644},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.damage(bytes.Clone(good)), tt.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := openEntry(path); !errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v, want %v", err, ErrCorrupt)
			}
			if err := Verify(openTest(t, dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVerifyNoticesContent(t *testing.T) {
	dir := t.TempDir()
	img := openTest(t, dir)
	path := img.File.Name()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("tampered"), 4096); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Chmod(path, 0o444)); err != nil {
		t.Fatal(err)
	}
	if err := Verify(img); !errors.Is(err, ErrCorrupt) {
		t.Errorf("error %v, want %v", err, ErrCorrupt)
	}
}

func TestOpenCleansUp(t *testing.T) {
	dir := t.TempDir()
	stale, fresh := filepath.Join(dir, tempPrefix+"1"), filepath.Join(dir, tempPrefix+"2")
	for _, p := range []string{stale, fresh} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	openTest(t, dir)
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stale temporary file: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("somebody's temporary file: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, entryName(), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, cache := range map[string]string{"cache is a file": file, "entry is a directory": taken} {
		t.Run(name, func(t *testing.T) {
			img, err := Open(cache)
			if err == nil {
				img.Close()
			}
			var oe *OpError
			if !errors.As(err, &oe) || strings.Count(err.Error(), "kernel: ") != 1 {
				t.Fatalf("error %v, want one OpError", err)
			}
			left, err := filepath.Glob(filepath.Join(cache, tempPrefix+"*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
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

func FuzzDecodeTrailer(f *testing.F) {
	f.Add((&trailer{base: minAddress, size: pageSize, memSize: pageSize, entry: minAddress}).encode())
	f.Add(make([]byte, trailerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := decodeTrailer(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("error %v, want %v", err, ErrCorrupt)
			}
			return
		}
		again, err := decodeTrailer(tr.encode())
		if err != nil || *again != *tr {
			t.Errorf("encoded again: %+v %v", again, err)
		}
	})
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
