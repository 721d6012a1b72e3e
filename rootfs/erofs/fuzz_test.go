package erofs_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	. "github.com/hutchvm/hutch/rootfs/erofs"
)

// FuzzImage reads images of anybody: no panic, no endless loop, no memory beyond
// what the image has.
func FuzzImage(f *testing.F) {
	file := tempImage(f)
	w := NewWriter(file, WriterOptions{})
	sample(f, w)
	if _, err := w.Finish(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(file.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	file = tempImage(f)
	w = NewWriter(file, WriterOptions{})
	ino, _ := w.File(reg(0o644), 1<<20, io.MultiReader(strings.NewReader("x"), io.LimitReader(zeroReader{}, 1<<20)))
	w.Link(Root, "sparse", ino)
	if _, err := w.Finish(); err != nil {
		f.Fatal(err)
	}
	if b, err = os.ReadFile(file.Name()); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= BlockSize {
			b = bytes.Clone(b)
			b[1024+8] &^= 1 // no checksum
		}
		im, err := OpenImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		left := 1000
		visit(t, im, im.Root(), &left, 0)
	})
}

func visit(t *testing.T, im *Image, nid uint64, left *int, depth int) {
	if *left--; *left < 0 || depth > 20 {
		return
	}
	f, err := im.File(nid)
	if err != nil {
		return
	}
	f.Xattrs()
	f.Target()
	var p [5000]byte
	if n, err := f.ReadAt(p[:], 3); err == nil && n != len(p) {
		t.Fatalf("%d bytes read without an error", n)
	}
	f.ReadAt(p[:], max(f.Size-10, 0))
	var kids []uint64
	f.Entries(func(e Entry) bool {
		if e.Name == "" || strings.ContainsAny(e.Name, "/\x00") {
			t.Fatalf("name %q", e.Name)
		}
		kids = append(kids, e.Number)
		return len(kids) < 100
	})
	f.Lookup("etc")
	for _, k := range kids {
		visit(t, im, k, left, depth+1)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
