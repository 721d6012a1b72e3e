package kernel

import (
	"bytes"
	"debug/elf"
	"testing"
)

// TestParts: every byte of the image that is not zero lies in a part, and
// the shared one is exactly the kernel's .text.
func TestParts(t *testing.T) {
	vmlinux, err := ELF()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()

	end := int64(0)
	gap := func(to int64) {
		b := make([]byte, to-end)
		if _, err := img.File.ReadAt(b, end); err != nil {
			t.Fatal(err)
		}
		if len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("there is something between %#x and %#x, outside the parts", end, to)
		}
	}
	for _, s := range img.Parts {
		if s.Offset%4096 != 0 || s.Size%4096 != 0 || s.Size <= 0 || s.Offset < end {
			t.Fatalf("part %+v is misplaced", s)
		}
		gap(s.Offset)
		end = s.Offset + s.Size
		text := f.Section(".text")
		if s.Shared && (s.Offset != 0 || uint64(s.Size) != (text.Size+4095)&^4095) {
			t.Errorf("the shared part is %+v, .text has %#x bytes", s, text.Size)
		}
	}
	gap(img.Size)
}
