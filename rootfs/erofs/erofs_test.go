package erofs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	goerofs "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	. "github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tempImage(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// fsck has the format's own tool look at the image.
func fsck(t testing.TB, name string) {
	t.Helper()
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		if os.Getenv("HUTCH_REQUIRE_KVM") == "1" {
			t.Fatal("fsck.erofs is missing: install erofs-utils")
		}
		t.Skip("fsck.erofs is missing: install erofs-utils")
	}
	if out, err := exec.Command(tool, "--extract", name).CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reg(mode uint16) Attr { return Attr{Mode: ModeRegular | mode} }

// describe reads an image into path → description.
func describe(t testing.TB, im *Image) map[string]string {
	t.Helper()
	return must(erofstest.Describe(im))(t)
}

func open(t testing.TB, f *os.File) *Image {
	t.Helper()
	st, err := f.Stat()
	check(t, err)
	im, err := OpenImage(f, st.Size())
	check(t, err)
	return im
}

// sample fills a Writer with one of everything.
func sample(t testing.TB, w *Writer) {
	link := func(dir Ino, name string, f func(testing.TB) Ino) Ino {
		ino := f(t)
		check(t, w.Link(dir, name, ino))
		return ino
	}
	caps := Xattr{"security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}
	etc := link(Root, "etc", must(w.Node(Attr{Mode: ModeDir | 0o755, Seconds: 1700000000, Nanos: 5})))
	link(etc, "hostname", must(w.File(reg(0o644), 5, strings.NewReader("hutch"))))
	ping := link(Root, "ping", must(w.File(Attr{Mode: ModeRegular | 0o4755, Xattrs: []Xattr{caps, {"user.x", []byte("1")}}}, 4, strings.NewReader("ping"))))
	check(t, w.Link(etc, "ping", ping))
	link(Root, "arping", must(w.File(Attr{Mode: ModeRegular | 0o755, Xattrs: []Xattr{caps}}, 0, strings.NewReader(""))))
	link(Root, "sym", must(w.Symlink(Attr{Mode: ModeSymlink | 0o777}, "etc/hostname")))
	link(Root, "longsym", must(w.Symlink(Attr{Mode: ModeSymlink | 0o777}, strings.Repeat("x/", 2047))))
	null, _ := Device(1, 3)
	link(Root, "null", must(w.Node(Attr{Mode: ModeChar | 0o666, Device: null})))
	big, _ := Device(4095, 1<<20-1)
	link(Root, "blk", must(w.Node(Attr{Mode: ModeBlock | 0o600, Device: big, UID: 1 << 20, GID: 1<<32 - 2})))
	link(Root, "fifo", must(w.Node(Attr{Mode: ModeFifo | 0o600, Seconds: -5})))
	link(Root, "sock", must(w.Node(Attr{Mode: ModeSocket | 0o600})))
	link(Root, "\xff\x01 \n!", must(w.File(reg(0o600), 1, strings.NewReader("!"))))
	link(Root, "-", must(w.Node(Attr{Mode: ModeDir | 0o1777})))
	link(Root, strings.Repeat("n", 255), must(w.Node(Attr{Mode: ModeDir})))
	check(t, w.SetAttr(Root, Attr{Mode: ModeDir | 0o711, Seconds: 7, Xattrs: []Xattr{
		{"system.posix_acl_default", []byte{2, 0, 0, 0}}, {"trusted.overlay.opaque", []byte("y")}}}))
}

func TestSample(t *testing.T) {
	f := tempImage(t)
	w := NewWriter(f, WriterOptions{})
	defer w.Close()
	sample(t, w)
	r, err := w.Finish()
	check(t, err)
	if st, _ := f.Stat(); st.Size() != r.Size || r.Size%BlockSize != 0 || r.Inodes != 14 {
		t.Errorf("result %+v, file of %d bytes", r, st.Size())
	}
	caps := " security.capability=0100000200200000000000000000000000000000"
	want := map[string]string{
		".":                      "040711 0:0 7.0 links=5 system.posix_acl_default=02000000 trusted.overlay.opaque=79",
		"etc":                    "040755 0:0 1700000000.5 links=2",
		"etc/hostname":           `100644 0:0 0.0 links=1 "hutch"`,
		"etc/ping":               `104755 0:0 0.0 links=2` + caps + ` user.x=31 "ping"`,
		"ping":                   `104755 0:0 0.0 links=2` + caps + ` user.x=31 "ping" same as etc/ping`,
		"arping":                 `100755 0:0 0.0 links=1` + caps + ` ""`,
		"sym":                    "120777 0:0 0.0 links=1 -> etc/hostname",
		"longsym":                "120777 0:0 0.0 links=1 -> " + strings.Repeat("x/", 2047),
		"null":                   "020666 0:0 0.0 links=1 1,3",
		"blk":                    "060600 1048576:4294967294 0.0 links=1 4095,1048575",
		"fifo":                   "010600 0:0 -5.0 links=1",
		"sock":                   "140600 0:0 0.0 links=1",
		"\xff\x01 \n!":           `100600 0:0 0.0 links=1 "!"`,
		"-":                      "041777 0:0 0.0 links=2",
		strings.Repeat("n", 255): "040000 0:0 0.0 links=2",
	}
	if d := cmp.Diff(want, describe(t, open(t, f))); d != "" {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	fsck(t, f.Name())
}

// TestBigTree makes directories of many blocks, files of all small sizes, and many
// names, more than what stays in memory.
func TestBigTree(t *testing.T) {
	f := tempImage(t)
	w := NewWriter(f, WriterOptions{Scratch: t.TempDir()})
	defer w.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, 3*BlockSize)
	for i := range content {
		content[i] = byte(rnd.Uint32() | 1)
	}
	sizes := map[string]int{}
	for d := range 30 {
		dir := must(w.Node(Attr{Mode: ModeDir | 0o755}))(t)
		check(t, w.Link(Root, fmt.Sprintf("d%d", d), dir))
		for i := range 300 {
			name := fmt.Sprintf("%0*d", 1+rnd.IntN(100)+3, i)
			n := rnd.IntN(len(content))
			var x []Xattr
			if i%7 == 0 {
				x = []Xattr{{"user.n", content[:rnd.IntN(3000)]}, {"user.same", []byte("same")}}
			}
			ino := must(w.File(Attr{Mode: ModeRegular | 0o644, Xattrs: x}, int64(n), bytes.NewReader(content)))(t)
			if err := w.Link(dir, name, ino); errors.Is(err, ErrExist) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			sizes[fmt.Sprintf("d%d/%s", d, name)] = n
		}
	}
	r, err := w.Finish()
	check(t, err)
	t.Logf("%+v, %d bytes of files", r, len(sizes)*len(content)/2)
	fsck(t, f.Name())

	st, _ := f.Stat()
	im, err := OpenImage(f, st.Size())
	check(t, err)
	theirs, err := goerofs.Open(f)
	check(t, err)
	for name, n := range sizes {
		file := lookup(t, im, name)
		got := must(io.ReadAll(file.Content()))(t)
		if !bytes.Equal(got, content[:n]) {
			t.Fatalf("%s: content differs", name)
		}
		g, err := theirs.Open(name)
		check(t, err)
		got = must(io.ReadAll(g))(t)
		g.Close()
		if !bytes.Equal(got, content[:n]) {
			t.Fatalf("%s: go-erofs reads other content", name)
		}
	}
}

func lookup(t testing.TB, im *Image, path string) *File {
	t.Helper()
	f, err := im.File(im.Root())
	check(t, err)
	for part := range strings.SplitSeq(path, "/") {
		var ok bool
		if f, ok, err = f.Lookup(part); err != nil || !ok {
			t.Fatalf("%s: %v, %v", path, ok, err)
		}
	}
	return f
}
