package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seg describes a program header of a made-up kernel.
type seg struct {
	typ            elf.ProgType
	paddr          uint64
	data           []byte
	memsz          uint64
	off, filesz    uint64 // when not zero, written instead of the true ones
	overrideFilesz bool
}

func load(paddr uint64, data []byte, memsz uint64) seg {
	return seg{typ: elf.PT_LOAD, paddr: paddr, data: data, memsz: memsz}
}

// makeELF writes an ELF file of headers and segment bytes.
func makeELF(t testing.TB, entry uint64, edit func(*elf.Header64), segs ...seg) []byte {
	t.Helper()
	const ehsize, phsize = 64, 56
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: entry, Phoff: ehsize, Ehsize: ehsize, Phentsize: phsize, Phnum: uint16(len(segs)),
		Shentsize: 64,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	if edit != nil {
		edit(&h)
	}
	var head, body bytes.Buffer
	if err := binary.Write(&head, binary.LittleEndian, &h); err != nil {
		t.Fatal(err)
	}
	for _, s := range segs {
		p := elf.Prog64{
			Type: uint32(s.typ), Off: uint64(ehsize + phsize*len(segs) + body.Len()),
			Paddr: s.paddr, Filesz: uint64(len(s.data)), Memsz: s.memsz, Align: pageSize,
		}
		if s.off != 0 {
			p.Off = s.off
		}
		if s.overrideFilesz {
			p.Filesz = s.filesz
		}
		if err := binary.Write(&head, binary.LittleEndian, &p); err != nil {
			t.Fatal(err)
		}
		body.Write(s.data)
	}
	return append(head.Bytes(), body.Bytes()...)
}

func TestParseELF(t *testing.T) {
	const mb = 1 << 20
	text := bytes.Repeat([]byte{0x90}, 5000)
	tests := []struct {
		name  string
		entry uint64
		edit  func(*elf.Header64)
		segs  []seg
		want  *Layout
		err   error
	}{
		{
			name: "two segments out of order, with bss and a note", entry: mb + 0x10,
			segs: []seg{load(2*mb, text[:10], 9000), {typ: elf.PT_NOTE, paddr: 7}, load(mb, text, 5000)},
			want: &Layout{
				Base: mb, FileSize: mb + 4096, MemSize: mb + 12288, Entry: mb + 0x10,
				Segments: []Segment{{232 + 10, mb, 5000, 5000}, {232, 2 * mb, 10, 9000}},
			},
		},
		{
			name: "base rounded down, only bss at the end", entry: mb + 0x20,
			segs: []seg{load(mb+0x20, text[:1], 1), load(mb+4096, nil, 4096), {typ: elf.PT_LOAD, paddr: 1}},
			want: &Layout{
				Base: mb, FileSize: 4096, MemSize: 8192, Entry: mb + 0x20,
				Segments: []Segment{{232, mb + 0x20, 1, 1}, {233, mb + 4096, 0, 4096}},
			},
		},
		{name: "no segment", err: ErrFormat},
		{name: "only a note", segs: []seg{{typ: elf.PT_NOTE, paddr: mb, memsz: 1}}, err: ErrFormat},
		{name: "overlap", entry: mb, segs: []seg{load(mb, text, 5000), load(mb+4999, text, 5000)}, err: ErrFormat},
		{name: "overlap with bss", entry: mb, segs: []seg{load(mb, text, 3*mb), load(2*mb, text, 5000)}, err: ErrFormat},
		{name: "entry before", entry: mb - 1, segs: []seg{load(mb, text, 5000)}, err: ErrFormat},
		{name: "entry in bss", entry: mb + 5000, segs: []seg{load(mb, text, 6000)}, err: ErrFormat},
		{name: "below one megabyte", entry: 0x1000, segs: []seg{load(0x1000, text, 5000)}, err: ErrFormat},
		{name: "in the device hole", entry: maxAddress, segs: []seg{load(maxAddress, text, 5000)}, err: ErrFormat},
		{name: "into the device hole", entry: maxAddress - 4096, segs: []seg{load(maxAddress-4096, text[:1], 4097)}, err: ErrTooLarge},
		{name: "address wraps", entry: mb, segs: []seg{load(1<<64-4096, text, 8192)}, err: ErrFormat},
		{name: "memory size wraps", entry: mb, segs: []seg{load(mb, text, 1<<64-1)}, err: ErrTooLarge},
		{name: "segment too large", entry: mb, segs: []seg{load(mb, text, maxSpan+1)}, err: ErrTooLarge},
		{name: "span too large", entry: mb, segs: []seg{load(mb, text, 5000), load(mb+maxSpan, text, 5000)}, err: ErrTooLarge},
		{name: "more in file than in memory", entry: mb, segs: []seg{load(mb, text, 4999)}, err: ErrFormat},
		{name: "past the end", entry: mb, segs: []seg{{typ: elf.PT_LOAD, paddr: mb, data: text, memsz: 9000, overrideFilesz: true, filesz: 5001}}, err: ErrFormat},
		{name: "offset past the end", entry: mb, segs: []seg{{typ: elf.PT_LOAD, paddr: mb, data: text, memsz: 9000, off: 1 << 40}}, err: ErrFormat},
		{name: "negative offset", entry: mb, segs: []seg{{typ: elf.PT_LOAD, paddr: mb, data: text, memsz: 9000, off: 1 << 63}}, err: ErrFormat},
		{name: "other machine", entry: mb, edit: func(h *elf.Header64) { h.Machine = uint16(elf.EM_AARCH64) }, segs: []seg{load(mb, text, 5000)}, err: ErrFormat},
		{name: "object file", entry: mb, edit: func(h *elf.Header64) { h.Type = uint16(elf.ET_REL) }, segs: []seg{load(mb, text, 5000)}, err: ErrFormat},
		{name: "no magic", entry: mb, edit: func(h *elf.Header64) { h.Ident[0] = 0 }, segs: []seg{load(mb, text, 5000)}, err: ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := makeELF(t, tt.entry, tt.edit, tt.segs...)
			got, err := ParseELF(bytes.NewReader(file), int64(len(file)))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if tt.err != nil {
				var oe *OpError
				if !errors.As(err, &oe) {
					t.Errorf("%T is not an OpError", err)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("layout (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseELFManySegments(t *testing.T) {
	segs := make([]seg, maxSegments+1)
	for i := range segs {
		segs[i] = load(uint64(1<<20+i*4096), []byte{1}, 1)
	}
	file := makeELF(t, 1<<20, nil, segs...)
	if _, err := ParseELF(bytes.NewReader(file), int64(len(file))); !errors.Is(err, ErrFormat) {
		t.Errorf("error %v, want %v", err, ErrFormat)
	}
}

func TestParseELFLargeFile(t *testing.T) {
	if _, err := ParseELF(bytes.NewReader(nil), maxELFSize+1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want %v", err, ErrTooLarge)
	}
}

// TestFlatten compares the sparse file with a plain copy of every segment.
func TestFlatten(t *testing.T) {
	const mb = 1 << 20
	// Pages of zeroes in the middle, at unaligned places, and past a whole buffer.
	long := make([]byte, 80*pageSize)
	copy(long[3:], "start")
	copy(long[70*pageSize-2:], "across")
	long[len(long)-1] = 1
	file := makeELF(t, mb, nil,
		load(mb, []byte("text"), 9000),
		load(mb+4*pageSize+123, long, uint64(len(long))),
		load(2*mb, make([]byte, 3*pageSize), 4*pageSize),
	)
	r := bytes.NewReader(file)
	l, err := ParseELF(r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, l.FileSize)
	copy(want, "text")
	copy(want[4*pageSize+123:], long)

	f, err := os.Create(filepath.Join(t.TempDir(), "flat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(l.FileSize)); err != nil {
		t.Fatal(err)
	}
	rec := &recordingWriter{File: f}
	if err := l.Flatten(rec, r); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the flat file differs from the segments")
	}
	// "text", "start", the two pages around "across", the last byte.
	if rec.pages > 5 {
		t.Errorf("%d pages written, want at most 5", rec.pages)
	}
}

// recordingWriter counts the pages written to a file.
type recordingWriter struct {
	*os.File
	pages int
}

func (w *recordingWriter) WriteAt(p []byte, at int64) (int, error) {
	w.pages += int((at+int64(len(p))-1)/pageSize - at/pageSize + 1)
	return w.File.WriteAt(p, at)
}

func TestFlattenShortFile(t *testing.T) {
	file := makeELF(t, 1<<20, nil, load(1<<20, []byte("text"), 4))
	r := bytes.NewReader(file)
	l, err := ParseELF(r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	// The file shrank between parsing and copying.
	err = l.Flatten(&recordingWriter{}, bytes.NewReader(file[:len(file)-1]))
	var oe *OpError
	if !errors.As(err, &oe) {
		t.Errorf("error %v, want an OpError", err)
	}
}

func FuzzParseELF(f *testing.F) {
	f.Add(makeELF(f, 1<<20, nil, load(1<<20, []byte("text"), 9000)))
	f.Add(makeELF(f, 1<<20, nil, load(1<<20, []byte("text"), 4), load(2<<20, nil, 4096)))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r := bytes.NewReader(file)
		l, err := ParseELF(r, r.Size())
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("unexpected kind of error: %v", err)
			}
			return
		}
		if l.Base%pageSize != 0 || l.FileSize%pageSize != 0 || l.MemSize > maxSpan || l.FileSize > l.MemSize ||
			l.Entry < l.Base || l.Entry-l.Base >= l.FileSize {
			t.Fatalf("inconsistent layout %+v", l)
		}
		if err := l.Flatten(&boundedWriter{t: t, size: int64(l.FileSize)}, r); err != nil {
			t.Errorf("flatten: %v", err)
		}
	})
}

// boundedWriter fails the test when something is written out of bounds.
type boundedWriter struct {
	t    *testing.T
	size int64
}

func (w *boundedWriter) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > w.size {
		w.t.Fatalf("%d bytes written at %#x of %#x", len(p), at, w.size)
	}
	return len(p), nil
}
