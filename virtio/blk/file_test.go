package blk

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
)

// pieces cuts b unevenly, with empty ones among them.
func pieces(b []byte) [][]byte {
	var out [][]byte
	for i := 0; len(b) > 0; i++ {
		n := min((i*37)%200, len(b))
		out, b = append(out, b[:n]), b[n:]
	}
	return out
}

func TestFileManyPieces(t *testing.T) {
	b := newFile(t, tempFile(t, 1<<20))
	data := randomBytes(200_192) // over maxIovecs pieces
	if n := len(pieces(data)); n <= 1024 {
		t.Fatalf("%d pieces are too few for this test", n)
	}
	if err := b.WriteAtv(pieces(data), 1024); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := b.ReadAtv(pieces(got), 1024); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("content differs")
	}
}

func TestFileErrors(t *testing.T) {
	f := tempFile(t, 4096)
	b := newFile(t, f)
	if err := b.ReadAtv([][]byte{make([]byte, 512)}, 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read past the end: %v", err)
	}
	ro, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	r := newFile(t, ro)
	if !r.ReadOnly() || b.ReadOnly() {
		t.Errorf("read-only is %v and %v", r.ReadOnly(), b.ReadOnly())
	}
	if err := r.WriteAtv([][]byte{make([]byte, 512)}, 0); err == nil {
		t.Error("write to a file opened for reading")
	}
	f2 := tempFile(t, 0)
	f2.Close()
	if _, err := NewFile(f2); err == nil {
		t.Error("closed file is accepted")
	}
}

// The way for file systems that can neither punch holes nor zero ranges.
func TestWriteZeroBuffers(t *testing.T) {
	f := tempFile(t, 4<<20)
	b := newFile(t, f)
	data := bytes.Repeat([]byte{1}, 4<<20)
	if err := b.WriteAtv([][]byte{data}, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.writeZeroBuffers(512, 3<<20); err != nil {
		t.Fatal(err)
	}
	clear(data[512 : 512+3<<20])
	got, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("content differs, %v", err)
	}
}
