package patch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/rootfs/erofs"
	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.erofs"))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func size(t testing.TB, f *os.File) int64 {
	t.Helper()
	st, err := f.Stat()
	check(t, err)
	return st.Size()
}

// base makes an image to patch.
func base(t testing.TB) Lower {
	t.Helper()
	f := tempFile(t)
	w := erofs.NewWriter(f, erofs.WriterOptions{})
	defer w.Close()
	add := func(dir erofs.Ino, name string, ino erofs.Ino, err error) erofs.Ino {
		t.Helper()
		check(t, err)
		check(t, w.Link(dir, name, ino))
		return ino
	}
	mkdir := func(dir erofs.Ino, name string, mode uint16, x ...erofs.Xattr) erofs.Ino {
		ino, err := w.Node(erofs.Attr{Mode: erofs.ModeDir | mode, UID: 7, Seconds: 100, Xattrs: x})
		return add(dir, name, ino, err)
	}
	file := func(dir erofs.Ino, name, data string) {
		ino, err := w.File(erofs.Attr{Mode: erofs.ModeRegular | 0o640, UID: 8, Seconds: 200}, int64(len(data)), strings.NewReader(data))
		add(dir, name, ino, err)
	}
	link := func(dir erofs.Ino, name, target string) {
		ino, err := w.Symlink(erofs.Attr{Mode: erofs.ModeSymlink | 0o777}, target)
		add(dir, name, ino, err)
	}
	etc := mkdir(erofs.Root, "etc", 0o750, erofs.Xattr{Name: "user.a", Value: []byte("1")})
	file(etc, "hosts", "localhost\n")
	file(etc, "motd", "hello\n")
	link(etc, "resolv.conf", "../run/resolv.conf")
	usr := mkdir(erofs.Root, "usr", 0o755)
	lib := mkdir(usr, "lib", 0o755)
	file(lib, "libc.so", "ELF")
	link(erofs.Root, "lib", "usr/lib")
	link(erofs.Root, "abs", "/usr/lib")
	link(erofs.Root, "out", "../../etc")
	link(erofs.Root, "loop", "loop")
	mkdir(erofs.Root, "run", 0o755)
	null, _ := erofs.Device(1, 3)
	ino, err := w.Node(erofs.Attr{Mode: erofs.ModeChar | 0o666, Device: null})
	add(erofs.Root, "null", ino, err)
	_, err = w.Finish()
	check(t, err)
	lower, err := Image(f, size(t, f))
	check(t, err)
	return lower
}

var nowTime = regexp.MustCompile(` (\d{10})\.\d+ `)

// build returns what the layer of the patches has, without the root's line.
func build(t testing.TB, lower Lower, patches ...Patch) (map[string]string, error) {
	t.Helper()
	f := tempFile(t)
	if err := Build(context.Background(), lower, patches, f); err != nil {
		return nil, err
	}
	if tool, err := exec.LookPath("fsck.erofs"); err == nil { // the tests of package erofs insist on it
		if out, err := exec.Command(tool, "--extract", f.Name()).CombinedOutput(); err != nil {
			t.Errorf("fsck.erofs: %v\n%s", err, out)
		}
	}
	im, err := erofs.OpenImage(f, size(t, f))
	check(t, err)
	all, err := erofstest.Describe(im)
	check(t, err)
	delete(all, ".")
	for k, v := range all {
		all[k] = nowTime.ReplaceAllString(v, " now ")
	}
	return all, nil
}

// source makes a directory of the host to copy.
func source(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	check(t, os.MkdirAll(filepath.Join(dir, "tree/lib/deep"), 0o755))
	for name, data := range map[string]string{"one": "1", "tree/a": "A", "tree/lib/b": "B", "tree/lib/deep/c": "C"} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	check(t, os.Symlink("/etc/passwd", filepath.Join(dir, "tree/link")))
	check(t, os.Chmod(filepath.Join(dir, "tree/a"), 0o4755|fs.ModeSetuid))
	var names []string
	check(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		names = append(names, p)
		return err
	}))
	for _, p := range names {
		if fi, err := os.Lstat(p); err == nil && fi.Mode()&fs.ModeSymlink == 0 {
			check(t, os.Chtimes(p, time.Unix(50, 0), time.Unix(50, 0)))
		}
	}
	return dir
}

const (
	etcLine = "040750 7:0 100.0 links=2 user.a=31"
	usrLine = "040755 7:0 100.0 links=3"
	libLine = "040755 7:0 100.0 links=2"
	runLine = libLine
	gone    = "020000 0:0 0.0 links=1 0,0"
)

func TestBuild(t *testing.T) {
	src := source(t)
	for _, c := range []struct {
		name    string
		patches []Patch
		want    map[string]string
	}{
		{"nothing", nil, map[string]string{}},
		{"file", []Patch{{Kind: File, Path: "/etc/new", Data: []byte("x")}}, map[string]string{
			"etc": etcLine, "etc/new": `100644 0:0 now links=1 "x"`}},
		{"file with parents, mode and owner", []Patch{{Kind: File, Path: "/srv//a/./b/", Data: []byte("x"), Mode: 0o711 | fs.ModeSetuid, UID: 1, GID: 1 << 20}}, map[string]string{
			"srv": "040755 0:0 0.0 links=3", "srv/a": "040755 0:0 0.0 links=2", "srv/a/b": `104711 1:1048576 now links=1 "x"`}},
		{"empty file", []Patch{{Kind: File, Path: "/e"}}, map[string]string{"e": `100644 0:0 now links=1 ""`}},
		{"replace", []Patch{{Kind: File, Path: "/etc/motd", Data: []byte("x"), Replace: true}}, map[string]string{
			"etc": etcLine, "etc/motd": `100644 0:0 now links=1 "x"`}},
		{"replace a link, not its target", []Patch{{Kind: File, Path: "/etc/resolv.conf", Data: []byte("x"), Replace: true}}, map[string]string{
			"etc": etcLine, "etc/resolv.conf": `100644 0:0 now links=1 "x"`}},
		{"parents through links", []Patch{{Kind: File, Path: "/lib/a"}, {Kind: File, Path: "/abs/b"}, {Kind: File, Path: "/out/c"}}, map[string]string{
			"usr": usrLine, "usr/lib": libLine, "usr/lib/a": `100644 0:0 now links=1 ""`, "usr/lib/b": `100644 0:0 now links=1 ""`,
			"etc": etcLine, "etc/c": `100644 0:0 now links=1 ""`}},
		{"append", []Patch{{Kind: Append, Path: "/etc/hosts", Data: []byte("more\n")}}, map[string]string{
			"etc": etcLine, "etc/hosts": `100640 8:0 now links=1 "localhost\nmore\n"`}},
		{"append to patches", []Patch{
			{Kind: File, Path: "/a", Data: []byte("1")}, {Kind: Append, Path: "/a", Data: []byte("2")}, {Kind: Append, Path: "/a", Data: []byte("3")},
			{Kind: Symlink, Path: "/l", Target: "a"}, {Kind: Append, Path: "/l", Data: []byte("4")},
			{Kind: CopyDir, Path: "/t", Source: src + "/tree"}, {Kind: Append, Path: "/t/a", Data: []byte("+")},
			{Kind: Remove, Path: "/t/lib"}, {Kind: Remove, Path: "/t/link"}},
			map[string]string{
				"a": `100644 0:0 now links=1 "1234"`, "l": "120777 0:0 now links=1 -> a",
				"t": "040755 0:0 50.0 links=2", "t/a": `104755 0:0 now links=1 "A+"`}},
		{"symlink", []Patch{{Kind: Symlink, Path: "/s", Target: "any where"}}, map[string]string{"s": "120777 0:0 now links=1 -> any where"}},
		{"mkdir", []Patch{{Kind: Mkdir, Path: "/etc"}, {Kind: Mkdir, Path: "/lib"}, {Kind: Mkdir, Path: "/"}, {Kind: Mkdir, Path: "/x/y", Mode: 0o700, GID: 3}}, map[string]string{
			"x": "040755 0:0 0.0 links=3", "x/y": "040700 0:3 now links=2"}},
		{"mkdir in place of a file", []Patch{{Kind: Mkdir, Path: "/etc/motd", Replace: true}}, map[string]string{
			"etc": strings.Replace(etcLine, "links=2", "links=3", 1), "etc/motd": "040755 0:0 now links=2"}},
		{"remove", []Patch{{Kind: Remove, Path: "/etc/motd"}, {Kind: Remove, Path: "/usr"}, {Kind: Remove, Path: "/none"}, {Kind: Remove, Path: "/none/x"},
			{Kind: Remove, Path: "/etc/hosts/x"}, {Kind: Remove, Path: "/usr"}, {Kind: Remove, Path: "/usr/lib"}},
			map[string]string{"etc": etcLine, "etc/motd": gone, "usr": gone}},
		{"remove through a link", []Patch{{Kind: Remove, Path: "/lib/libc.so"}}, map[string]string{"usr": usrLine, "usr/lib": libLine, "usr/lib/libc.so": gone}},
		{"remove what was patched", []Patch{{Kind: File, Path: "/etc/new"}, {Kind: File, Path: "/etc/motd", Replace: true}, {Kind: Remove, Path: "/etc/new"}, {Kind: Remove, Path: "/etc/motd"}},
			map[string]string{"etc": etcLine, "etc/motd": gone}},
		{"remove, then make again", []Patch{{Kind: Remove, Path: "/etc"}, {Kind: File, Path: "/etc/a"}, {Kind: Remove, Path: "/etc/motd"}, {Kind: Remove, Path: "/null"}, {Kind: File, Path: "/null"}},
			map[string]string{"etc": "040755 0:0 0.0 links=2 trusted.overlay.opaque=79", "etc/a": `100644 0:0 now links=1 ""`, "null": `100644 0:0 now links=1 ""`}},
		{"copy file", []Patch{{Kind: CopyFile, Path: "/one", Source: src + "/one"}, {Kind: CopyFile, Path: "/two", Source: src + "/one", Mode: 0o444, UID: 9}}, map[string]string{
			"one": `100600 0:0 50.0 links=1 "1"`, "two": `100444 9:0 50.0 links=1 "1"`}},
		{"copy directory", []Patch{{Kind: CopyDir, Path: "/t", Source: src + "/tree", UID: 5}}, map[string]string{
			"t": "040755 5:0 50.0 links=3", "t/a": `104755 5:0 50.0 links=1 "A"`, "t/link": "120777 5:0 now links=1 -> /etc/passwd",
			"t/lib": "040755 5:0 50.0 links=3", "t/lib/b": `100600 5:0 50.0 links=1 "B"`,
			"t/lib/deep": "040755 5:0 50.0 links=2", "t/lib/deep/c": `100600 5:0 50.0 links=1 "C"`}},
		{"merge directory", []Patch{{Kind: CopyDir, Path: "/", Source: src + "/tree", Replace: true}}, map[string]string{
			"a": `104755 0:0 50.0 links=1 "A"`, "link": "120777 0:0 now links=1 -> /etc/passwd",
			"usr": usrLine, "usr/lib": "040755 7:0 100.0 links=3", "usr/lib/b": `100600 0:0 50.0 links=1 "B"`,
			"usr/lib/deep": "040755 0:0 50.0 links=2", "usr/lib/deep/c": `100600 0:0 50.0 links=1 "C"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := build(t, base(t), c.patches...)
			check(t, err)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	src := source(t)
	check(t, os.Mkdir(filepath.Join(src, "tree/null"), 0o755))
	for _, c := range []struct {
		name  string
		patch Patch
		want  error
	}{
		{"exists", Patch{Kind: File, Path: "/etc/motd"}, fs.ErrExist},
		{"link exists", Patch{Kind: Symlink, Path: "/loop", Target: "x"}, fs.ErrExist},
		{"directory exists", Patch{Kind: CopyDir, Path: "/etc", Source: src}, fs.ErrExist},
		{"root exists", Patch{Kind: CopyDir, Path: "/", Source: src}, fs.ErrExist},
		{"file by mkdir", Patch{Kind: Mkdir, Path: "/etc/motd"}, fs.ErrExist},
		{"replaces directory", Patch{Kind: File, Path: "/etc", Replace: true}, ErrIsDir},
		{"replaces directory by link", Patch{Kind: Symlink, Path: "/etc", Target: "x", Replace: true}, ErrIsDir},
		{"below a file", Patch{Kind: File, Path: "/etc/motd/x"}, ErrNotDir},
		{"below a device", Patch{Kind: Mkdir, Path: "/null/x"}, ErrNotDir},
		{"loop", Patch{Kind: File, Path: "/loop/x"}, ErrLoop},
		{"append to nothing", Patch{Kind: Append, Path: "/etc/none"}, fs.ErrNotExist},
		{"append in nothing", Patch{Kind: Append, Path: "/none/none"}, fs.ErrNotExist},
		{"append to a directory", Patch{Kind: Append, Path: "/etc"}, ErrIsDir},
		{"append to a device", Patch{Kind: Append, Path: "/null"}, ErrNotFile},
		{"relative", Patch{Kind: File, Path: "etc/x"}, ErrInvalid},
		{"dots", Patch{Kind: File, Path: "/etc/../x"}, ErrInvalid},
		{"root", Patch{Kind: Remove, Path: "//."}, ErrInvalid},
		{"no kind", Patch{Path: "/x"}, ErrInvalid},
		{"long name", Patch{Kind: File, Path: "/" + strings.Repeat("x", 256)}, ErrInvalid},
		{"zero byte", Patch{Kind: File, Path: "/\x00"}, ErrInvalid},
		{"no target", Patch{Kind: Symlink, Path: "/x"}, ErrInvalid},
		{"mode", Patch{Kind: File, Path: "/x", Mode: fs.ModeDir}, ErrInvalid},
		{"no source", Patch{Kind: CopyFile, Path: "/x"}, ErrInvalid},
		{"absent source", Patch{Kind: CopyFile, Path: "/x", Source: src + "/none"}, fs.ErrNotExist},
		{"source a directory", Patch{Kind: CopyFile, Path: "/x", Source: src}, ErrNotFile},
		{"source a file", Patch{Kind: CopyDir, Path: "/x", Source: src + "/one"}, ErrNotDir},
		{"source a device", Patch{Kind: CopyFile, Path: "/x", Source: os.DevNull}, ErrNotFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := build(t, base(t), Patch{Kind: File, Path: "/first"}, c.patch)
			var e *Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Index != 1 || e.Path != c.patch.Path {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Build(ctx, base(t), []Patch{{Kind: File, Path: "/x"}}, tempFile(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDirectory patches a directory of the host.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "etc"), 0o711))
	check(t, os.WriteFile(filepath.Join(dir, "etc/a"), []byte("1"), 0o604))
	check(t, os.Symlink("/etc", filepath.Join(dir, "in")))
	check(t, os.Symlink("../../../../../../etc", filepath.Join(dir, "out")))
	for _, n := range []string{"etc", "etc/a"} {
		check(t, os.Chtimes(filepath.Join(dir, n), time.Unix(9, 0), time.Unix(9, 0)))
	}
	root, err := os.OpenRoot(dir)
	check(t, err)
	defer root.Close()
	got, err := build(t, Directory(root), Patch{Kind: Append, Path: "/in/a", Data: []byte("2")}, Patch{Kind: File, Path: "/out/b"}, Patch{Kind: Remove, Path: "/in"})
	check(t, err)
	const owner = "0:0" // whoever runs the test
	want := map[string]string{
		"etc": "040711 " + owner + " 9.0 links=2", "etc/a": `100604 ` + owner + ` now links=1 "12"`,
		"etc/b": `100644 0:0 now links=1 ""`, "in": gone,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "etc/a")); string(b) != "1" {
		t.Errorf("the directory was changed: %q", b)
	}
}
