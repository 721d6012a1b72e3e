package prep

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// testKernel is an ELF file with nothing in it.
func testKernel(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	err := binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: 64,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bzImage puts a payload behind a setup header.
func bzImage(sects byte, payload []byte) []byte {
	image := make([]byte, (int(max(sects, 4))+1)*sectorSize)
	image[offSetupSects] = sects
	copy(image[offMagic:], "HdrS")
	const gap = 16
	binary.LittleEndian.PutUint32(image[offPayloadOffset:], gap)
	binary.LittleEndian.PutUint32(image[offPayloadLength:], uint32(len(payload)))
	image = append(image, make([]byte, gap)...)
	image = append(image, payload...)
	return append(image, "what follows the payload"...)
}

// packed compresses a kernel as the kernel's build does it, with the size behind.
func packed(t testing.TB, kind string, kernel []byte) []byte {
	t.Helper()
	size := binary.LittleEndian.AppendUint32(nil, uint32(len(kernel)))
	var b bytes.Buffer
	switch kind {
	case "gzip":
		w := gzip.NewWriter(&b)
		w.Write(kernel)
		w.Close()
		return b.Bytes() // gzip has the size in itself
	case "zstd":
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(kernel)
		w.Close()
	case "xz":
		cmd := exec.Command("xz", "--stdout", "--check=crc32")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(kernel), &b
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	return append(b.Bytes(), size...)
}

func TestUnpackKernel(t *testing.T) {
	kernel := append(testKernel(t), bytes.Repeat([]byte("text"), 50_000)...)
	for _, kind := range []string{"gzip", "zstd", "xz"} {
		for _, sects := range []byte{0, 4, 39} {
			got, err := unpackKernel(bzImage(sects, packed(t, kind, kernel)))
			if err != nil || !bytes.Equal(got, kernel) {
				t.Errorf("%s, %d setup sectors: %d bytes, %v; want %d", kind, sects, len(got), err, len(kernel))
			}
		}
	}
}

func TestUnpackKernelErrors(t *testing.T) {
	kernel := testKernel(t)
	good := bzImage(4, packed(t, "gzip", kernel))
	beyond := bytes.Clone(good)
	binary.LittleEndian.PutUint32(beyond[offPayloadLength:], 1<<32-1)
	for name, image := range map[string][]byte{
		"empty":              {},
		"no header":          make([]byte, 4096),
		"payload beyond end": beyond,
		"another format":     bzImage(4, []byte("BZh91AY&SY, say")),
		"no ELF inside":      bzImage(4, packed(t, "gzip", []byte("some text"))),
		"cut xz":             bzImage(4, packed(t, "xz", kernel)[:40]),
		"cut zstd":           bzImage(4, packed(t, "zstd", kernel)[:12]),
	} {
		if _, err := unpackKernel(image); !errors.Is(err, ErrKernelFormat) {
			t.Errorf("%s: %v, want ErrKernelFormat", name, err)
		}
	}
}
