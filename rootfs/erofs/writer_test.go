package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	. "github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

func TestWriterRefuses(t *testing.T) {
	w := NewWriter(tempImage(t), WriterOptions{})
	defer w.Close()
	dir := must(w.Node(Attr{Mode: ModeDir | 0o755}))(t)
	file := must(w.File(reg(0o644), 1, strings.NewReader("x")))(t)
	check(t, w.Link(Root, "d", dir))
	check(t, w.Link(dir, "f", file))
	loose := must(w.Node(Attr{Mode: ModeDir}))(t)
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"taken name", w.Link(dir, "f", file), ErrExist},
		{"in a file", w.Link(file, "x", file), ErrNotDir},
		{"empty name", w.Link(Root, "", file), ErrInvalid},
		{"dot", w.Link(Root, ".", file), ErrInvalid},
		{"dots", w.Link(Root, "..", file), ErrInvalid},
		{"slash", w.Link(Root, "a/b", file), ErrInvalid},
		{"zero byte", w.Link(Root, "a\x00", file), ErrInvalid},
		{"long name", w.Link(Root, strings.Repeat("x", 256), file), ErrInvalid},
		{"second name of a directory", w.Link(Root, "e", dir), ErrIsDir},
		{"directory in itself", w.Link(dir, "e", dir), ErrIsDir},
		{"the root", w.Link(dir, "e", Root), ErrIsDir},
		{"in a directory without a name", w.Link(loose, "e", must(w.Node(Attr{Mode: ModeDir}))(t)), ErrIsDir},
		{"attributes of a file", w.SetAttr(file, Attr{Mode: ModeDir}), ErrNotDir},
		{"directory becomes a file", w.SetAttr(dir, Attr{Mode: ModeRegular}), ErrNotDir},
		{"node of a file", second(w.Node(reg(0))), ErrInvalid},
		{"file of a device", second(w.File(Attr{Mode: ModeChar}, 0, nil)), ErrInvalid},
		{"negative size", second(w.File(reg(0), -1, nil)), ErrInvalid},
		{"short content", second(w.File(reg(0), 9, strings.NewReader("x"))), io.ErrUnexpectedEOF},
		{"short large content", second(w.File(reg(0), 1<<20, io.LimitReader(zeroReader{}, 99999))), io.ErrUnexpectedEOF},
		{"no target", second(w.Symlink(Attr{Mode: ModeSymlink}, "")), ErrInvalid},
		{"long target", second(w.Symlink(Attr{Mode: ModeSymlink}, strings.Repeat("x", 4096))), ErrInvalid},
		{"fraction of a second", second(w.Node(Attr{Mode: ModeFifo, Nanos: 1e9})), ErrRange},
		{"namespace", second(w.Node(Attr{Mode: ModeDir, Xattrs: []Xattr{{"x.y", nil}}})), ErrInvalid},
		{"namespace alone", second(w.Node(Attr{Mode: ModeDir, Xattrs: []Xattr{{"user.", nil}}})), ErrInvalid},
		{"attribute twice", second(w.Node(Attr{Mode: ModeDir, Xattrs: []Xattr{{"user.a", nil}, {"user.a", nil}}})), ErrInvalid},
		{"long attribute name", second(w.Node(Attr{Mode: ModeDir, Xattrs: []Xattr{{"user." + strings.Repeat("x", 251), nil}}})), ErrRange},
		{"large attribute", second(w.Node(Attr{Mode: ModeDir, Xattrs: []Xattr{{"user.a", make([]byte, 65536)}}})), ErrRange},
		{"many attributes", second(w.Node(Attr{Mode: ModeDir, Xattrs: []Xattr{{"user.a", make([]byte, 40000)}, {"user.b", make([]byte, 40000)}}})), ErrRange},
	} {
		var e *Error
		if !errors.Is(c.err, c.want) || !errors.As(c.err, &e) {
			t.Errorf("%s: error is %v, want %v", c.name, c.err, c.want)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Error(err)
	}
	if _, err := w.Finish(); !errors.Is(err, ErrInvalid) {
		t.Errorf("second Finish: %v", err)
	}
	if err := second(w.Node(Attr{Mode: ModeDir})); !errors.Is(err, ErrInvalid) {
		t.Errorf("after Finish: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestRemoved: what has no name is not in the image and takes no disk space, also
// where it had been written.
func TestRemoved(t *testing.T) {
	f := tempImage(t)
	w := NewWriter(f, WriterOptions{})
	defer w.Close()
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	add := func(dir Ino, name string) {
		t.Helper()
		ino := must(w.File(reg(0o644), int64(len(blob)), bytes.NewReader(blob)))(t)
		check(t, w.Link(dir, name, ino))
	}
	dir := must(w.Node(Attr{Mode: ModeDir | 0o755}))(t)
	check(t, w.Link(Root, "d", dir))
	for _, name := range []string{"1", "2", "3"} {
		add(dir, name)
	}
	add(Root, "keep")
	kept, _ := w.Lookup(dir, "2")
	check(t, w.Link(Root, "other", kept))
	must(w.File(reg(0o644), int64(len(blob)), bytes.NewReader(blob)))(t) // never named
	w.Remove(Root, "d")
	w.Remove(Root, "none")
	check(t, w.Discard())
	add(Root, "late")
	w.Remove(Root, "late")
	r, err := w.Finish()
	check(t, err)
	if want := int64(4 * len(blob)); r.Holes != want || r.Inodes != 3 {
		t.Errorf("%+v, want %d bytes of holes", r, want)
	}
	line := strings.TrimSuffix(must(erofstest.Line(lookup(t, open(t, f), "keep")))(t), "\n")
	want := map[string]string{".": "040755 0:0 0.0 links=2", "keep": line, "other": line}
	if d := cmp.Diff(want, describe(t, open(t, f))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	st, err := f.Stat()
	check(t, err)
	if disk := st.Sys().(*syscall.Stat_t).Blocks * 512; disk > int64(3*len(blob)) {
		t.Errorf("image takes %d bytes on disk", disk)
	}
	fsck(t, f.Name())
}

// TestHoles: chunks of all sizes, and what is between them.
func TestHoles(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int64
		islands []int64 // where a few bytes are
		most    int64   // bytes of the image
	}{
		{"none", 5 << 20, nil, 16 << 10},
		{"byte", 1, nil, 16 << 10},
		{"end", 10<<20 + 1, []int64{10 << 20}, 32 << 10},
		{"begin", 10<<20 + 5000, []int64{0}, 96 << 10},
		{"many", 100 << 20, []int64{0, 1 << 20, 1<<20 + 70000, 50<<20 - 1, 99 << 20}, 512 << 10},
		{"large chunks", 9 << 30, []int64{5, 4<<30 + 100000, 9<<30 - 1}, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.size > 1<<30 && testing.Short() {
				t.Skip("reads gigabytes of zeros")
			}
			f := tempImage(t)
			w := NewWriter(f, WriterOptions{})
			defer w.Close()
			check(t, w.Link(Root, "f", must(w.File(reg(0o644), c.size, &islands{at: c.islands}))(t)))
			r, err := w.Finish()
			check(t, err)
			if r.Size > c.most {
				t.Errorf("image of %d bytes, want at most %d", r.Size, c.most)
			}
			file := lookup(t, open(t, f), "f")
			if file.Size != c.size {
				t.Fatalf("size %d, want %d", file.Size, c.size)
			}
			// Around each island, and across the chunks.
			for _, at := range append(c.islands, 0, c.size/2, max(c.size-70000, 0)) {
				from := max(at-100000, 0)
				want := make([]byte, min(200000, c.size-from))
				(&islands{pos: from, at: c.islands}).Read(want)
				got := make([]byte, len(want))
				if _, err := file.ReadAt(got, from); err != nil || !bytes.Equal(got, want) {
					t.Errorf("around %d: %v", at, err)
				}
			}
			if c.size < 1<<30 {
				fsck(t, f.Name())
			}
		})
	}
}

// islands is zeros with single bytes among them.
type islands struct {
	pos int64
	at  []int64
}

func (r *islands) Read(p []byte) (int, error) {
	clear(p)
	for _, at := range r.at {
		if at >= r.pos && at < r.pos+int64(len(p)) {
			p[at-r.pos] = 'x'
		}
	}
	r.pos += int64(len(p))
	return len(p), nil
}

// TestManyXattrs: more attributes than a file may share, or an image remembers.
func TestManyXattrs(t *testing.T) {
	f := tempImage(t)
	w := NewWriter(f, WriterOptions{Scratch: t.TempDir()})
	defer w.Close()
	want := map[string][]Xattr{}
	add := func(name string, x []Xattr) {
		t.Helper()
		check(t, w.Link(Root, name, must(w.File(Attr{Mode: ModeRegular, Xattrs: x}, 1, strings.NewReader("x")))(t)))
		want[name] = x
	}
	var same []Xattr
	for i := range 700 {
		same = append(same, Xattr{fmt.Sprintf("user.%04d", i), fmt.Append(nil, i)})
	}
	add("one", same)
	add("two", same)
	add("some", same[100:200])
	for i := range 200 { // 12 MiB, each twice
		x := []Xattr{{"user.big", bytes.Repeat([]byte{byte(i)}, 60000)}, {"user.n", fmt.Append(nil, i)}}
		add(fmt.Sprint("big", i), x)
		add(fmt.Sprint("BIG", i), append([]Xattr{{"user.a", fmt.Append(nil, -i)}}, x...))
	}
	for i := range 300 { // 90,000 that are all different
		var x []Xattr
		for k := range 300 {
			x = append(x, Xattr{fmt.Sprintf("user.%04d", k), fmt.Appendf(nil, "%d-%d", i, k)})
		}
		add(fmt.Sprint("unique", i), x)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	im := open(t, f)
	for name, x := range want {
		got := must(lookup(t, im, name).Xattrs())(t)
		if !slices.EqualFunc(x, got, func(a, b Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }) {
			t.Fatalf("%s: %d attributes, want %d, or they differ", name, len(got), len(x))
		}
	}
	fsck(t, f.Name())
}

// TestDiskFull: an image file that has no room.
func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	w := NewWriter(full, WriterOptions{})
	defer w.Close()
	if _, err := w.File(reg(0), 4<<20, &islands{at: []int64{5, 1 << 20, 2 << 20}}); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("File: %v", err)
	}
	if _, err := w.Finish(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Finish: %v", err)
	}
}

// TestCorrupt: images that contradict themselves are errors, whatever is asked.
func TestCorrupt(t *testing.T) {
	f := tempImage(t)
	w := NewWriter(f, WriterOptions{})
	check(t, w.Link(Root, "f", must(w.File(reg(0o644), 5000, bytes.NewReader(make([]byte, 4999+1))))(t)))
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	good := must(os.ReadFile(f.Name()))(t)
	meta := int(good[1024+40]) * BlockSize // where numbers begin; the root is 2
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want error
	}{
		{"empty", func(b []byte) []byte { return nil }, ErrCorrupt},
		{"short", func(b []byte) []byte { return b[:4095] }, ErrCorrupt},
		{"magic", func(b []byte) []byte { b[1024]++; return b }, ErrCorrupt},
		{"checksum", func(b []byte) []byte { b[1024+16]++; return b }, ErrCorrupt},
		{"block size", func(b []byte) []byte { b[1024+12] = 16; return b }, ErrUnsupported},
		{"compression", func(b []byte) []byte { b[1024+80] |= 1; return b }, ErrUnsupported},
		{"no metadata", func(b []byte) []byte { return b[:meta] }, ErrCorrupt},
		{"root a file", func(b []byte) []byte { b[meta+64+5] = 0x81; return b }, ErrNotDir},
		{"root of no type", func(b []byte) []byte { b[meta+64+5] = 0; return b }, ErrCorrupt},
		{"root of another layout", func(b []byte) []byte { b[meta+64] = 1 | 3<<1; return b }, ErrUnsupported},
		{"negative size", func(b []byte) []byte { b[meta+64+15] = 0xff; return b }, ErrCorrupt},
		{"beyond the end", func(b []byte) []byte { b[meta+64+13] = 1; return b }, ErrCorrupt},
		{"entries", func(b []byte) []byte { b[meta+128+8] = 13; return b }, ErrCorrupt},
		{"name offset", func(b []byte) []byte { b[meta+128+12+9] = 0xff; return b }, ErrCorrupt},
		{"number", func(b []byte) []byte { b[meta+128+24+7] = 0xff; return b }, ErrCorrupt},
	} {
		b := c.edit(bytes.Clone(good))
		im, err := OpenImage(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = erofstest.Describe(im)
		}
		if c.name != "checksum" && len(b) > 2000 && errors.Is(err, ErrCorrupt) && strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s: the checksum hides it", c.name)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error is %v, want %v", c.name, err, c.want)
		}
	}
}
