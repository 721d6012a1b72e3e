// Package mounttest has Linux mount what the packages erofs, layer and patch make.
package mounttest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
	"github.com/hutchvm/hutch/rootfs/layer"
	"github.com/hutchvm/hutch/rootfs/patch"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// image makes an image of all kinds of files.
func image(t testing.TB) *os.File {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, data io.Reader) {
		t.Helper()
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Format = tar.FormatPAX
		h.ModTime = time.Unix(1e9, 5e8)
		check(t, w.WriteHeader(&h))
		if data != nil {
			_, err := io.Copy(w, data)
			check(t, err)
		}
	}
	text := []byte(strings.Repeat("0123456789abcdef", 1<<14))
	for i, n := range []int{0, 1, 31, 3000, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 65536, 100000, 200001} {
		add(tar.Header{Name: fmt.Sprintf("sizes/%d", n), Size: int64(n), Uid: i << 14}, bytes.NewReader(text[:n]))
		x := map[string]string{"SCHILY.xattr.user.own": fmt.Sprint(i, strings.Repeat("v", i*290)), "SCHILY.xattr.user.same": "same"}
		add(tar.Header{Name: fmt.Sprintf("xattrs/%d", n), Size: int64(n), PAXRecords: x}, bytes.NewReader(text[:n]))
		add(tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprintf("links/%d", n), Linkname: fmt.Sprintf("sizes/%d", n)}, nil)
	}
	huge := map[string]string{"SCHILY.xattr.user.big": strings.Repeat("x", 60000), "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	add(tar.Header{Name: "huge-xattr", Size: 100, PAXRecords: huge, Mode: 0o4755}, bytes.NewReader(text[:100]))
	add(tar.Header{Typeflag: tar.TypeDir, Name: "xattr-dir", PAXRecords: huge}, nil)
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x07\x00\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	add(tar.Header{Name: "acl", PAXRecords: map[string]string{"SCHILY.xattr.system.posix_acl_access": acl}}, nil)
	several := map[string]string{}
	for i := range 300 {
		several[fmt.Sprintf("SCHILY.xattr.user.%d", i)] = fmt.Sprint(i)
	}
	add(tar.Header{Name: "many-xattrs", PAXRecords: several}, nil)
	add(tar.Header{Name: "many-xattrs-too", PAXRecords: several}, nil)
	// Holes: at the beginning, in the middle, at the end.
	sparse := make([]byte, 1<<20+77)
	copy(sparse[300<<10:], "middle")
	copy(sparse[600<<10:], text)
	add(tar.Header{Name: "sparse", Size: int64(len(sparse))}, bytes.NewReader(sparse))
	add(tar.Header{Name: "zeros", Size: 10 << 20}, io.LimitReader(zeroReader{}, 10<<20))
	for i := range 2000 {
		add(tar.Header{Name: fmt.Sprintf("many/%0*d", 4+i%200, i)}, nil)
	}
	for i := range 40 {
		add(tar.Header{Name: strings.Repeat("deep/", i) + string(rune('a'+i%26))}, nil)
	}
	add(tar.Header{Name: "\x01\xff\"\n !-."}, nil)
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "sizes/31"}, nil)
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "long", Linkname: strings.Repeat("l", 4095)}, nil)
	add(tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, nil)
	add(tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 259, Devminor: 300}, nil)
	add(tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}, nil)
	add(tar.Header{Name: "etc/motd", Size: 5}, strings.NewReader("hello"))
	add(tar.Header{Name: "etc/hosts", Size: 5}, strings.NewReader("hosts"))
	add(tar.Header{Typeflag: tar.TypeDir, Name: ".", Mode: 0o711}, nil)
	check(t, w.Close())

	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = layer.Convert(context.Background(), []layer.Layer{{
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(&b), nil },
	}}, f, layer.Options{})
	check(t, err)
	return f
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func open(t testing.TB, f *os.File) *erofs.Image {
	t.Helper()
	st, err := f.Stat()
	check(t, err)
	im, err := erofs.OpenImage(f, st.Size())
	check(t, err)
	return im
}

// mount has the kernel mount an image.
func mount(t testing.TB, f *os.File) string {
	t.Helper()
	at := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", f.Name(), at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

func TestKernelMount(t *testing.T) {
	kvmtest.RequireLinux(t) // only there a kernel is ours to mount things in
	f := image(t)
	want, err := erofstest.Describe(open(t, f))
	check(t, err)
	at := mount(t, f)
	got, err := erofstest.DescribeHost(at)
	check(t, err)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-ours +kernel's):\n%.3000s", d)
	}
	if len(got) < 2100 {
		t.Errorf("%d files only", len(got))
	}
	// Names that are not there, before, among and behind those that are.
	for _, name := range []string{"sizes/-", "sizes/30", "sizes/~", "many/0", "many/1234", "many/999999999", "~"} {
		if _, err := os.Lstat(filepath.Join(at, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Run("patched", func(t *testing.T) { patched(t, f, at, want) })
}

// patched mounts a layer of patches above the image, as guests do.
func patched(t *testing.T, f *os.File, base string, want map[string]string) {
	st, err := f.Stat()
	check(t, err)
	lower, err := patch.Image(f, st.Size())
	check(t, err)
	out, err := os.Create(filepath.Join(t.TempDir(), "patches"))
	check(t, err)
	defer out.Close()
	check(t, patch.Build(context.Background(), lower, []patch.Patch{
		{Kind: patch.File, Path: "/etc/new", Data: []byte("new")},
		{Kind: patch.File, Path: "/etc/motd", Data: []byte("patched"), Replace: true},
		{Kind: patch.Append, Path: "/etc/hosts", Data: []byte("!")},
		{Kind: patch.Remove, Path: "/many"},
		{Kind: patch.Remove, Path: "/sizes/31"},
		{Kind: patch.Remove, Path: "/links"},
		{Kind: patch.File, Path: "/links/only", Data: []byte("1")},
		{Kind: patch.Mkdir, Path: "/dir/b"},
		{Kind: patch.Symlink, Path: "/deep/s", Target: "x"},
	}, out))
	top, merged := mount(t, out), t.TempDir()
	check(t, unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, "lowerdir="+top+":"+base))
	defer unix.Unmount(merged, unix.MNT_DETACH)
	got, err := erofstest.DescribeHost(merged)
	check(t, err)

	// Directories of an overlay have one link; new files are of now; names of
	// one file are not told.
	reduce := func(all map[string]string) map[string]string {
		short := map[string]string{}
		for name, line := range all {
			line, _, _ = strings.Cut(line, " same as ")
			fields := strings.Fields(line)
			if strings.HasPrefix(line, "04") {
				fields[3] = ""
			}
			if fields[2] != "1000000000.500000000" && fields[2] != "0.0" {
				fields[2] = "now"
			}
			short[name] = strings.Join(fields, " ")
		}
		return short
	}
	want = reduce(want)
	maps.DeleteFunc(want, func(name, _ string) bool {
		return strings.HasPrefix(name+"/", "many/") || strings.HasPrefix(name+"/", "links/") || name == "sizes/31"
	})
	const file, dir = "100644 0:0 now links=1 ", "040755 0:0 0.0 "
	maps.Copy(want, map[string]string{
		"etc/new": file + `"new"`, "etc/motd": file + `"patched"`, "etc/hosts": file + `"hosts!"`,
		"links": dir, "links/only": file + `"1"`, "dir": dir, "dir/b": "040755 0:0 now ",
		"deep/s": "120777 0:0 now links=1 -> x",
	})
	if d := cmp.Diff(want, reduce(got)); d != "" {
		t.Errorf("(-want +got):\n%.3000s", d)
	}
}
