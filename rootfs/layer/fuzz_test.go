package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

// FuzzConvert applies layers of anybody. Either the layer is refused, with an error
// that says where, or an image comes out that can be read from one end to the other.
func FuzzConvert(f *testing.F) {
	f.Add(pack(f, file("a/b", "1"), hard("c", "a/b"), symlink("d", "a"), file("d/e", "2"), dir("a", 0o700)), byte(0))
	f.Add(pack(f, file(".wh.a", ""), file("a/.wh..wh..opq", ""), withXattr(file("x", "1"), "user.a", "1"), special(tar.TypeChar, "null", 1, 3)), byte(0))
	f.Add(pack(f, symlink("a", "b"), symlink("b", "a"), file("../../x", "")), byte(0))
	l := squeeze(f, Gzip, pack(f, file("a", "1")))
	r, _ := l.Open(context.Background())
	var b bytes.Buffer
	b.ReadFrom(r)
	f.Add(b.Bytes(), byte(Gzip))
	lower := pack(f, file("a/b", "1"), file("a/c/d", "2"), symlink("l", "/a/c"), hard("h", "a/b"))
	limits := Limits{Entries: 200, TotalBytes: 4 << 20, FileBytes: 1 << 20, PathDepth: 20}
	f.Fuzz(func(t *testing.T, b []byte, c byte) {
		l := plain(b)
		l.Compression = Compression(c % 3)
		out := tempImage(t)
		_, err := Convert(context.Background(), []Layer{plain(lower), l}, out, Options{Limits: limits})
		if err != nil {
			if e := (*Error)(nil); !errors.As(err, &e) || e.Layer != 1 {
				t.Fatalf("error %v", err)
			}
			return
		}
		if _, err := erofstest.Describe(openImage(t, out)); err != nil {
			t.Fatal(err)
		}
	})
}
