package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Entries of a layer, as short as tests like them.

type entry struct {
	tar.Header
	data string
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func file(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}, data}
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hard(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func special(kind byte, name string, major, minor int64) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor}}
}

func withXattr(e entry, xattrs ...string) entry {
	e.PAXRecords = map[string]string{}
	for i := 0; i < len(xattrs); i += 2 {
		e.PAXRecords[xattrRecord+xattrs[i]] = xattrs[i+1]
	}
	return e
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1, 0)
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func plain(b []byte) Layer {
	return Layer{Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

func tempImage(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openImage(t testing.TB, f *os.File) *erofs.Image {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	im, err := erofs.OpenImage(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// convert returns what an image of these layers has.
func convert(t testing.TB, opts Options, layers ...[]byte) (map[string]string, Stats, error) {
	t.Helper()
	var all []Layer
	for _, l := range layers {
		all = append(all, plain(l))
	}
	f := tempImage(t)
	stats, err := Convert(context.Background(), all, f, opts)
	if err != nil {
		return nil, stats, err
	}
	got, err := erofstest.Describe(openImage(t, f))
	if err != nil {
		t.Fatal(err)
	}
	return got, stats, nil
}

// names reduces a description to what most cases are about.
func names(all map[string]string) string {
	var s []string
	for name, line := range all {
		if name == "." {
			continue
		}
		switch line[:3] {
		case "100":
			s = append(s, name+"="+line[strings.Index(line, `"`):])
		case "120":
			s = append(s, name+line[strings.LastIndex(line, " -> "):])
		case "040":
			s = append(s, name+"/")
		default:
			s = append(s, name+"?")
		}
	}
	return strings.Join(sorted(s), "  ")
}

func sorted(s []string) []string {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s
}

// TestApply: what layers make of one another.
func TestApply(t *testing.T) {
	type layers = [][]entry
	for _, c := range []struct {
		name   string
		layers layers
		want   string
	}{
		{"nothing", layers{{}}, ""},
		{"missing parents", layers{{file("a/b/c", "x")}}, `a/  a/b/  a/b/c="x"`},
		{"names are cleaned", layers{{file("./a", "1"), file("/b", "2"), file("c//d", "3"), file("e/../f", "4")}}, `a="1"  b="2"  c/  c/d="3"  f="4"`},
		{"never outside", layers{{file("../../x", "1"), file("/../y", "2"), file("d/../../z", "3")}}, `x="1"  y="2"  z="3"`},
		{"any bytes", layers{{file("\x01\xff \n\"", "1")}}, "\x01\xff \n\"=\"1\""},
		{"duplicate", layers{{file("a", "1"), file("a", "2")}}, `a="2"`},
		{"parent after child", layers{{file("d/x", "1"), dir("d/", 0o700)}}, `d/  d/x="1"`},
		{"directory merged", layers{{dir("d", 0o700), file("d/x", "1")}, {dir("d", 0o755), file("d/y", "2")}}, `d/  d/x="1"  d/y="2"`},
		{"file replaces directory", layers{{file("d/x/y", "1")}, {file("d", "2")}}, `d="2"`},
		{"directory replaces file", layers{{file("d", "1")}, {dir("d", 0o755), file("d/x", "2")}}, `d/  d/x="2"`},
		{"directory replaces link", layers{{dir("usr/lib", 0o755), file("usr/lib/a", "1"), symlink("lib", "usr/lib")}, {dir("lib", 0o755), file("lib/b", "2")}},
			`lib/  lib/b="2"  usr/  usr/lib/  usr/lib/a="1"`},
		{"linked parent", layers{{dir("usr/lib", 0o755), symlink("lib", "usr/lib")}, {file("lib/b", "2")}}, `lib -> usr/lib  usr/  usr/lib/  usr/lib/b="2"`},
		{"absolute linked parent", layers{{symlink("var/run", "/run"), file("var/run/pid", "1")}}, `run/  run/pid="1"  var/  var/run -> /run`},
		{"parent linked outside", layers{{symlink("x", "../../../etc"), file("x/passwd", "1")}}, `etc/  etc/passwd="1"  x -> ../../../etc`},
		{"chain of links", layers{{symlink("a", "b/c"), symlink("b", "/d"), symlink("d/c", "../e"), file("a/f", "1")}}, `a -> b/c  b -> /d  d/  d/c -> ../e  e/  e/f="1"`},

		{"whiteout", layers{{file("a", "1"), file("b", "2"), file("d/x", "3")}, {file(".wh.a", ""), file(".wh.d", ""), file(".wh.none", ""), file("none/.wh.x", "")}}, `b="2"`},
		{"whiteout then entry", layers{{file("a", "1"), file("d/x", "2")}, {file(".wh.a", ""), file("a", "3"), file(".wh.d", ""), file("d/y", "4")}}, `a="3"  d/  d/y="4"`},
		{"entry then whiteout", layers{{file("a", "1"), file("d/x", "2")}, {file("a", "3"), file("d/y", "4"), file(".wh.a", ""), file(".wh.d", "")}}, `a="3"  d/  d/y="4"`},
		{"whiteout through a link", layers{{file("d/x", "1"), symlink("l", "d")}, {file("l/.wh.x", "")}}, `d/  l -> d`},
		{"whiteout of a link", layers{{file("d/x", "1"), symlink("l", "d")}, {file(".wh.l", "")}}, `d/  d/x="1"`},
		{"opaque first", layers{{file("d/x", "1"), file("d/s/y", "2")}, {dir("d", 0o755), file("d/.wh..wh..opq", ""), file("d/z", "3")}}, `d/  d/z="3"`},
		{"opaque last", layers{{file("d/x", "1"), file("d/s/y", "2"), file("d/s/k", "k")}, {file("d/z", "3"), file("d/s/n", "4"), file("d/.wh..wh..opq", "")}}, `d/  d/s/  d/s/n="4"  d/z="3"`},
		{"opaque root", layers{{file("a", "1")}, {file(".wh..wh..opq", ""), file("b", "2")}}, `b="2"`},
		{"old metadata", layers{{file(".wh..wh.plnk/123.4", "1"), file(".wh..wh.aufs", "2"), file("a", "3")}}, `a="3"`},
		{"whiteout of a whiteout's name", layers{{file("d/.x", "1")}, {file("d/.wh..x", "")}}, `d/`},

		{"hard links", layers{{file("a", "1"), hard("b", "a"), hard("d/c", "./b")}}, `a="1"  b="1" same as a  d/  d/c="1" same as b`},
		{"hard link across layers", layers{{file("a", "1")}, {hard("b", "/a")}}, `a="1"  b="1" same as a`},
		{"hard link replaces", layers{{file("a", "1"), file("b/c", "2")}, {hard("b", "a")}}, `a="1"  b="1" same as a`},
		{"hard link again", layers{{file("a", "1"), hard("b", "a")}, {hard("b", "a")}}, `a="1"  b="1" same as a`},
		{"hard link survives its target", layers{{file("a", "1"), hard("b", "a")}, {file(".wh.a", "")}}, `b="1"`},
		{"hard link, target replaced", layers{{file("a", "1"), hard("b", "a"), file("a", "2")}}, `a="2"  b="1"`},
		{"hard link to a symbolic one", layers{{symlink("s", "x"), hard("t", "s")}}, `s -> x  t -> x same as s`},
		{"hard link through links", layers{{file("d/a", "1"), symlink("l", "/d"), hard("l/b", "../l/a")}}, `d/  d/a="1"  d/b="1" same as d/a  l -> /d`},

		{"special files", layers{{special(tar.TypeChar, "c", 1, 3), special(tar.TypeBlock, "b", 8, 1), special(tar.TypeFifo, "f", 0, 0)}}, `b?  c?  f?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all [][]byte
			for _, l := range c.layers {
				all = append(all, pack(t, l...))
			}
			got, _, err := convert(t, Options{}, all...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, names(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestAttributes: what an entry says about its file.
func TestAttributes(t *testing.T) {
	root := dir("./", 0o1755)
	root.Uid = 5
	odd := file("odd", "x")
	odd.Mode, odd.Uid, odd.Gid, odd.ModTime = 0o6711, 1<<20, 1<<32-2, time.Unix(-7, 25).UTC()
	odd.Format = tar.FormatPAX
	caps := withXattr(file("ping", "p"), "security.capability", "\x01\x00\x00\x02", "user.a", "\x00\xff",
		"trusted.overlay.opaque", "y", "user.overlay.opaque", "y", "system.nfs4_acl", "z", "bogus", "b")
	linked := hard("ping2", "ping")
	linked.Mode = 0o4000
	late := dir("d", 0o2750)
	late.Gid = 42
	got, stats, err := convert(t, Options{}, pack(t,
		root, odd, caps, linked, file("d/x", ""), late,
		withXattr(symlink("s", "t"), "user.a", "1", "security.selinux", "l"),
		withXattr(dir("implied/e", 0o700), "user.a", "1"),
		special(tar.TypeChar, "c", 4095, 1<<20-1)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		".":         "041755 5:0 1.0 links=4",
		"odd":       `106711 1048576:4294967294 -7.25 links=1 "x"`,
		"ping":      `100644 0:0 1.0 links=2 security.capability=01000002 user.a=00ff "p"`,
		"ping2":     `100644 0:0 1.0 links=2 security.capability=01000002 user.a=00ff "p" same as ping`,
		"d":         "042750 0:42 1.0 links=2",
		"d/x":       `100644 0:0 1.0 links=1 ""`,
		"s":         "120777 0:0 1.0 links=1 security.selinux=6c -> t",
		"implied":   "040755 0:0 0.0 links=3",
		"implied/e": "040700 0:0 1.0 links=2 user.a=31",
		"c":         "020600 0:0 1.0 links=1 4095,1048575",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if stats.DroppedXattrs != 5 || stats.Entries != 11 || stats.Inodes != 9 {
		t.Errorf("stats %+v", stats)
	}
}

// TestRefused: layers that get a clear error.
func TestRefused(t *testing.T) {
	long := strings.Repeat("n", 256)
	big := file("a", "")
	big.Uid = -2
	deep := strings.Repeat("d/", 40) + "x"
	self := []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "1")}
	for _, c := range []struct {
		name    string
		entries []entry
		limits  Limits
		want    error
		entry   string
	}{
		{"long name", []entry{file("d/"+long, "")}, Limits{}, ErrPath, "d/" + long},
		{"long implied name", []entry{file(long+"/x", "")}, Limits{}, ErrPath, long + "/x"},
		{"long path", []entry{file(strings.Repeat("d/", 2100)+"x", "")}, Limits{}, ErrPath, strings.Repeat("d/", 2100) + "x"},
		{"deep", []entry{file(deep, "")}, Limits{PathDepth: 30}, ErrLimit, deep},
		{"deep by links", []entry{symlink("d/d/d/d/l", "."), symlink("e", "d/d/d/d"), file("e/l/e/f", "")}, Limits{PathDepth: 4}, ErrLimit, "e/l/e/f"},
		{"root a file", []entry{file(".", "")}, Limits{}, ErrPath, "."},
		{"root a link", []entry{symlink("/", "x")}, Limits{}, ErrPath, "/"},
		{"below a file", []entry{file("a", "1"), file("a/b", "2")}, Limits{}, ErrNotDir, "a/b"},
		{"below a device", []entry{special(tar.TypeChar, "a", 1, 3), file("a/b", "2")}, Limits{}, ErrNotDir, "a/b"},
		{"link cycle", self, Limits{}, ErrLoop, "a/x"},
		{"link to itself as parent", []entry{symlink("a", "a/b"), file("a/x", "1")}, Limits{}, ErrLoop, "a/x"},
		{"empty target", []entry{symlink("a", "")}, Limits{}, ErrPath, "a"},
		{"long target", []entry{symlink("a", strings.Repeat("t", 4096))}, Limits{}, ErrPath, "a"},
		{"hard link to nothing", []entry{hard("a", "b")}, Limits{}, ErrLink, "a"},
		{"hard link into nothing", []entry{hard("a", "b/c")}, Limits{}, ErrLink, "a"},
		{"hard link to itself", []entry{file("a", "1"), hard("a", "./a")}, Limits{}, ErrLink, "a"},
		{"hard link to a directory", []entry{dir("d", 0o755), hard("a", "d")}, Limits{}, ErrLink, "a"},
		{"hard link to the root", []entry{hard("a", "/..")}, Limits{}, ErrLink, "a"},
		{"hard link outside", []entry{hard("a", "../../etc/shadow")}, Limits{}, ErrLink, "a"},
		{"hard link to what it replaces", []entry{file("d/x", "1"), hard("d", "d/x")}, Limits{}, ErrLink, "d"},
		{"whiteout of nothing", []entry{file("d/.wh.", "")}, Limits{}, ErrWhiteout, "d/.wh."},
		{"whiteout of the directory", []entry{file("d/.wh..", "")}, Limits{}, ErrWhiteout, "d/.wh.."},
		{"whiteout of its parent", []entry{file("d/.wh...", "")}, Limits{}, ErrWhiteout, "d/.wh..."},
		{"too many entries", []entry{file("a", ""), file("b", ""), file("c", "")}, Limits{Entries: 3}, ErrLimit, "c"},
		{"too many implied", []entry{file("a/b/c/d", "")}, Limits{Entries: 4}, ErrLimit, "a/b/c/d"},
		{"large file", []entry{file("a", "12345")}, Limits{FileBytes: 4}, ErrLimit, "a"},
		{"large sum", []entry{file("a", strings.Repeat("x", 3000))}, Limits{TotalBytes: 2500}, ErrLimit, "a"},
		{"attributes", []entry{withXattr(file("a", ""), "user.a", strings.Repeat("x", 100))}, Limits{XattrBytes: 50}, ErrLimit, "a"},
		{"large attribute", []entry{withXattr(file("a", ""), "user.a", strings.Repeat("x", 70000))}, Limits{}, ErrAttribute, "a"},
		{"device number", []entry{special(tar.TypeChar, "a", 1<<12, 0)}, Limits{}, ErrAttribute, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := convert(t, Options{Limits: c.limits}, pack(t, file("lower", "1")), pack(t, c.entries...))
			var e *Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Layer != 1 || e.Entry != c.entry {
				t.Errorf("error is %v, want %v, of entry %q", err, c.want, c.entry)
			}
		})
	}
	if _, _, err := convert(t, Options{Limits: Limits{Entries: -1}}, pack(t)); err == nil {
		t.Error("negative limit accepted")
	}
}

func squeeze(t testing.TB, c Compression, b []byte) Layer {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch c {
	case None:
		out.Write(b)
	case Gzip:
		w = gzip.NewWriter(&out)
	case Zstd:
		w, _ = zstd.NewWriter(&out)
	}
	if w != nil {
		w.Write(b)
		w.Close()
	}
	l := plain(out.Bytes())
	l.Compression, l.Size = c, int64(out.Len())
	return l
}

// TestReproducible: the same bytes, however the layer is packed.
func TestReproducible(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var entries, upper []entry
	for i := range 400 {
		b := make([]byte, rnd.IntN(20000))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		e := file(fmt.Sprintf("d%d/f%d", i%17, i), string(b))
		if i%5 == 0 {
			e = withXattr(e, "user.a", "1", "user.b", fmt.Sprint(i), "user.c", "3", "user.d", "4")
		}
		entries = append(entries, e)
		switch i % 9 {
		case 0:
			upper = append(upper, file(fmt.Sprintf("d%d/.wh.f%d", i%17, i), ""))
		case 1:
			upper = append(upper, file(fmt.Sprintf("d%d/f%d", i%17, i), "new"))
		}
	}
	lower, top := pack(t, entries...), pack(t, upper...)
	var first []byte
	for i, c := range []Compression{None, Gzip, Zstd, None} {
		f := tempImage(t)
		var last, total int64
		layers := []Layer{squeeze(t, c, lower), squeeze(t, c, top)}
		stats, err := Convert(context.Background(), layers, f, Options{Progress: func(done, all int64) { last, total = done, all }})
		if err != nil {
			t.Fatal(err)
		}
		if want := layers[0].Size + layers[1].Size; last != want || total != want {
			t.Errorf("progress ended at %d of %d, want %d", last, total, want)
		}
		if stats.HoleBytes == 0 || stats.TarBytes != int64(len(lower)+len(top)) {
			t.Errorf("stats %+v", stats)
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(b, first) {
			t.Errorf("packing %d gives another image", c)
		}
	}
}
