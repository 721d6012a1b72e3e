package erofs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestNoHoles: where a file system has no holes, the image is the same.
func TestNoHoles(t *testing.T) {
	var images [][]byte
	for _, can := range []bool{true, false} {
		f, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := NewWriter(f, WriterOptions{})
		defer w.Close()
		if !can {
			w.data.makeHole = func(*os.File, int64, int64) bool { return false }
		}
		for i, n := range []int{100000, 300000, 5000, 2 << 20} {
			blob := bytes.Repeat([]byte{byte(i + 1)}, n)
			ino, err := w.File(Attr{Mode: ModeRegular}, int64(n), bytes.NewReader(blob))
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Link(Root, string(rune('a'+i)), ino); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"d", "b"} {
			w.Remove(Root, name)
			if err := w.Discard(); err != nil {
				t.Fatal(err)
			}
		}
		r, err := w.Finish()
		if err != nil || r.Holes < 2<<20 {
			t.Fatalf("%+v, %v", r, err)
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, b)
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("images differ")
	}
	if bytes.Contains(images[1], bytes.Repeat([]byte{2}, 5000)) {
		t.Error("a removed file is still in the image")
	}
}
