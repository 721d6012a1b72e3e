package share

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

// What the guest says of owners, modes and kinds is the guest's own affair.
func TestKeptApart(t *testing.T) {
	s, host := newServer(t, Options{})
	dir := mount(t, s)
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	must(t, os.Chown(dir+"/f", 12, 34))
	must(t, os.Chmod(dir+"/f", 0o6751|os.ModeSetuid|os.ModeSetgid))
	must(t, os.Mkdir(dir+"/d", 0o000))
	must(t, os.Chmod(dir+"/d", 0o1777|os.ModeSticky))
	must(t, unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, 1<<8|3))
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	must(t, os.Symlink("anything", dir+"/l"))
	must(t, os.Lchown(dir+"/l", 5, 6))
	for round := range 2 { // the second time with nothing in any cache
		for _, tt := range []struct {
			name           string
			mode, uid, gid uint32
			rdev           uint64
		}{
			{"f", unix.S_IFREG | 0o6751, 12, 34, 0}, {"d", unix.S_IFDIR | 0o1777, 0, 0, 0}, {"null", unix.S_IFCHR | 0o644, 0, 0, 1<<8 | 3},
			{"fifo", unix.S_IFIFO | 0o600, 0, 0, 0}, {"l", unix.S_IFLNK | 0o777, 5, 6, 0},
		} {
			st := stat(t, filepath.Join(dir, tt.name))
			if st.Mode != tt.mode || st.Uid != tt.uid || st.Gid != tt.gid || st.Rdev != tt.rdev {
				t.Errorf("round %d: %s: mode %o, owner %d:%d, device %#x", round, tt.name, st.Mode, st.Uid, st.Gid, st.Rdev)
			}
			h := stat(t, filepath.Join(host, tt.name))
			kind := h.Mode & unix.S_IFMT
			if kind != unix.S_IFREG && kind != unix.S_IFDIR && kind != unix.S_IFLNK || h.Mode&0o7000 != 0 || h.Uid != uint32(os.Geteuid()) {
				t.Errorf("on the host: %s: mode %o, owner %d", tt.name, h.Mode, h.Uid)
			}
		}
		must(t, unix.Mount("", filepath.Dir(dir), "", unix.MS_REMOUNT, ""))
		time.Sleep(1100 * time.Millisecond)
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if e.Name() == "null" && e.Type()&fs.ModeCharDevice == 0 {
			t.Errorf("in the list: null is %v", e.Type())
		}
	}
	// A change of the file takes the special bits away, a reader sees the device.
	if f, err := os.OpenFile(dir+"/null", os.O_RDWR, 0); err != nil {
		t.Errorf("the device: %v", err)
	} else {
		f.Close()
	}
}

func TestSetGroupID(t *testing.T) {
	s, _ := newServer(t, Options{})
	dir := mount(t, s)
	must(t, os.Mkdir(dir+"/d", 0o755))
	must(t, os.Chown(dir+"/d", 0, 77))
	must(t, os.Chmod(dir+"/d", 0o755|os.ModeSetgid))
	must(t, os.WriteFile(dir+"/d/f", nil, 0o644))
	must(t, os.Mkdir(dir+"/d/e", 0o755))
	if st := stat(t, dir+"/d/f"); st.Gid != 77 {
		t.Errorf("group %d of a file in a set-group-ID directory", st.Gid)
	}
	if st := stat(t, dir+"/d/e"); st.Gid != 77 || st.Mode&unix.S_ISGID == 0 {
		t.Errorf("group %d, mode %o of a directory in a set-group-ID one", st.Gid, st.Mode)
	}
}

func TestMirror(t *testing.T) {
	s, host := newServer(t, Options{Mirror: true})
	dir := mount(t, s)
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	must(t, os.Chown(dir+"/f", 12, 34))
	must(t, os.Chmod(dir+"/f", 0o751|os.ModeSetuid))
	must(t, os.Mkdir(dir+"/d", 0o711))
	if h := stat(t, host+"/f"); h.Uid != 12 || h.Gid != 34 || h.Mode != unix.S_IFREG|0o751 {
		t.Errorf("on the host: mode %o, owner %d:%d", h.Mode, h.Uid, h.Gid)
	}
	if h := stat(t, host+"/d"); h.Mode&0o7777 != 0o711 {
		t.Errorf("directory on the host: mode %o", h.Mode)
	}
	wantErr(t, "a device node", unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, 1<<8|3), unix.EPERM)
}

func TestReadOnly(t *testing.T) {
	host := t.TempDir()
	must(t, os.WriteFile(host+"/f", []byte("content"), 0o644))
	must(t, os.Mkdir(host+"/d", 0o755))
	before := stat(t, host+"/f")
	s, _ := newServer(t, Options{Path: host, ReadOnly: true})
	dir := mount(t, s)
	if b, err := os.ReadFile(dir + "/f"); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	_, open := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	_, truncate := os.OpenFile(dir+"/f", os.O_RDONLY|os.O_TRUNC, 0)
	for what, err := range map[string]error{
		"open": open, "truncating open": truncate, "create": os.WriteFile(dir+"/n", nil, 0o644), "mkdir": os.Mkdir(dir+"/n", 0o755),
		"remove": os.Remove(dir + "/f"), "rmdir": unix.Rmdir(dir + "/d"), "rename": os.Rename(dir+"/f", dir+"/g"), "link": os.Link(dir+"/f", dir+"/g"),
		"symlink": os.Symlink("x", dir+"/g"), "chmod": os.Chmod(dir+"/f", 0o600), "chown": os.Chown(dir+"/f", 1, 1),
		"truncate": os.Truncate(dir+"/f", 0), "times": os.Chtimes(dir+"/f", time.Now(), time.Now()),
		"setxattr": unix.Setxattr(dir+"/f", "user.x", nil, 0), "mknod": unix.Mknod(dir+"/n", unix.S_IFREG|0o600, 0),
		"removexattr": unix.Removexattr(dir+"/f", "user.x"),
	} {
		wantErr(t, what, err, unix.EROFS)
	}
	after := stat(t, host+"/f")
	if after.Mtim != before.Mtim || after.Ctim != before.Ctim || after.Mode != before.Mode {
		t.Error("the file was changed")
	}
}

func TestQuota(t *testing.T) {
	host := t.TempDir()
	must(t, os.WriteFile(host+"/old", make([]byte, 1<<20), 0o644))
	must(t, os.Link(host+"/old", host+"/older")) // counts once
	s, _ := newServer(t, Options{Path: host, Quota: 4 << 20})
	dir := mount(t, s)
	used := func() int64 {
		u, _ := s.Usage("data")
		return u.Used
	}
	if u := used(); u < 1<<20 || u > 1<<20+64<<10 {
		t.Errorf("to begin with: %d bytes", u)
	}
	wantErr(t, "too much", os.WriteFile(dir+"/a", make([]byte, 4<<20), 0o644), unix.ENOSPC)
	must(t, os.Remove(dir+"/a"))
	must(t, os.WriteFile(dir+"/a", make([]byte, 2<<20), 0o644))
	f, err := os.OpenFile(dir+"/a", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 2<<20), 1<<20)
	wantErr(t, "growth", err, unix.ENOSPC)
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 0); err != nil {
		t.Errorf("writing over what is there: %v", err)
	}
	wantErr(t, "fallocate", unix.Fallocate(int(f.Fd()), 0, 0, 8<<20), unix.ENOSPC)
	must(t, f.Truncate(1<<40)) // a hole costs nothing
	must(t, f.Truncate(0))
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if total := st.Blocks * uint64(st.Frsize); total != 4<<20 {
		t.Errorf("statfs: %d bytes", total)
	}
	// What is open and removed counts until it is closed.
	_, err = f.WriteAt(make([]byte, 2<<20), 0)
	must(t, err)
	must(t, os.Remove(dir+"/a"))
	if u := used(); u < 3<<20 {
		t.Errorf("removed and open: %d bytes", u)
	}
	must(t, f.Close())
	for end := time.Now().Add(10 * time.Second); used() > 2<<20 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if u := used(); u > 1<<20+64<<10 {
		t.Errorf("removed and closed: %d bytes", u)
	}
	must(t, os.Remove(dir+"/old"))
	if u := used(); u < 1<<20 {
		t.Errorf("a file with another name was counted out: %d bytes", u)
	}
	// Names cost too.
	made := 0
	for i := range 10000 {
		if err := os.Mkdir(filepath.Join(dir, string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676))), 0o755); err != nil {
			wantErr(t, "mkdir", err, unix.ENOSPC)
			break
		}
		made++
	}
	if made == 0 || made == 10000 {
		t.Errorf("%d directories in 3 MiB", made)
	}
}

func TestXattrs(t *testing.T) {
	s, host := newServer(t, Options{})
	dir := mount(t, s)
	must(t, os.WriteFile(dir+"/f", nil, 0o644))
	must(t, os.Chown(dir+"/f", 1, 2)) // makes an attribute of ours
	for _, name := range []string{"user.a", "trusted.overlay.opaque"} {
		must(t, unix.Setxattr(dir+"/f", name, []byte("value of "+name), 0))
	}
	// Version 2, no capabilities: the kernel looks at it.
	must(t, unix.Setxattr(dir+"/f", "security.capability", append([]byte{1, 0, 0, 2}, make([]byte, 16)...), 0))
	b := make([]byte, 1000)
	n, err := unix.Listxattr(dir+"/f", b)
	must(t, err)
	got := map[string]bool{}
	for _, name := range bytes.Split(bytes.TrimRight(b[:n], "\x00"), []byte{0}) {
		got[string(name)] = true
	}
	if len(got) != 3 || !got["user.a"] || !got["trusted.overlay.opaque"] || !got["security.capability"] {
		t.Errorf("list: %v", got)
	}
	n, err = unix.Getxattr(dir+"/f", "trusted.overlay.opaque", b)
	if err != nil || string(b[:n]) != "value of trusted.overlay.opaque" {
		t.Errorf("%q, %v", b[:max(n, 0)], err)
	}
	for _, name := range []string{"security.capability", "trusted.overlay.opaque"} {
		if _, err := unix.Getxattr(host+"/f", name, b); err == nil {
			t.Errorf("%s is on the host", name)
		}
	}
	// Ours are out of reach.
	for _, name := range []string{"user.hutch.stat", "user.hutch.x.user.a"} {
		if s.tree.exports["data"].store == "user." {
			wantErr(t, "set "+name, unix.Setxattr(dir+"/f", name, []byte("0 0 104755 0"), 0), unix.EPERM)
			_, err := unix.Getxattr(dir+"/f", name, b)
			wantErr(t, "get "+name, err, unix.ENODATA)
		}
	}
	// A write takes the capabilities away.
	must(t, os.WriteFile(dir+"/f", []byte("x"), 0o644))
	_, err = unix.Getxattr(dir+"/f", "security.capability", b)
	wantErr(t, "capability after a write", err, unix.ENODATA)
	must(t, unix.Removexattr(dir+"/f", "user.a"))
}

// A share of one file shows this file and no other.
func TestSingleFile(t *testing.T) {
	host := t.TempDir()
	must(t, os.WriteFile(host+"/f", []byte("one"), 0o644))
	must(t, os.WriteFile(host+"/other", []byte("other"), 0o644))
	s, _ := newServer(t, Options{Path: host + "/f"})
	file := mount(t, s)
	if b, err := os.ReadFile(file); err != nil || string(b) != "one" {
		t.Errorf("%q, %v", b, err)
	}
	must(t, os.WriteFile(file, []byte("two"), 0o644))
	if b, _ := os.ReadFile(host + "/f"); string(b) != "two" {
		t.Errorf("on the host: %q", b)
	}
	if _, err := os.Stat(file + "/other"); err == nil {
		t.Error("there is something below a file")
	}
	wantErr(t, "remove", os.Remove(file), unix.EROFS)
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 || entries[0].Name() != "data" {
		t.Errorf("the root lists %v, %v", entries, err)
	}
}

// Changes on the host are seen, by stat within a second and in data at the next
// open.
func TestHostChanges(t *testing.T) {
	s, host := newServer(t, Options{})
	dir := mount(t, s)
	for _, content := range []string{"first", "second", "third, and longer"} {
		must(t, os.WriteFile(host+"/f", []byte(content), 0o644))
		time.Sleep(1100 * time.Millisecond)
		if b, err := os.ReadFile(dir + "/f"); err != nil || string(b) != content {
			t.Errorf("%q, %v, want %q", b, err, content)
		}
	}
	must(t, os.Remove(host+"/f"))
	time.Sleep(1100 * time.Millisecond)
	if _, err := os.Stat(dir + "/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that the host removed: %v", err)
	}
}

// A share takes what is below it on other file systems as well, with inode
// numbers that differ.
func TestSubmount(t *testing.T) {
	host := t.TempDir()
	must(t, os.Mkdir(host+"/sub", 0o755))
	if err := unix.Mount("tmpfs", host+"/sub", "tmpfs", 0, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(host+"/sub", unix.MNT_DETACH)
	must(t, os.WriteFile(host+"/sub/f", []byte("x"), 0o644))
	s, _ := newServer(t, Options{Path: host})
	dir := mount(t, s)
	if b, err := os.ReadFile(dir + "/sub/f"); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	a, b := stat(t, dir), stat(t, dir+"/sub")
	if a.Ino == b.Ino {
		t.Error("two directories with one inode number")
	}
}

func TestOptions(t *testing.T) {
	s, _ := newServer(t, Options{})
	dir := t.TempDir()
	for name, o := range map[string]Options{"a/b": {Path: dir}, "..": {Path: dir}, "": {Path: dir}, "quota": {Path: dir, Quota: -1},
		"path": {}, "device": {Path: "/dev/null"}, "cache": {Path: dir, Cache: 9}} {
		wantErr(t, name, s.Add(name, o), ErrInvalid)
	}
	wantErr(t, "missing", s.Add("missing", Options{Path: dir + "/none"}), fs.ErrNotExist)
	wantErr(t, "twice", s.Add("data", Options{Path: dir}), ErrExists)
	if _, err := New(Config{MaxNodes: -1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func FuzzOwner(f *testing.F) {
	f.Add("0 0 100644 0", uint32(typeReg))
	f.Add("1 2 20666 259", uint32(typeReg))
	f.Add("1 2 40755 0", uint32(typeDir))
	f.Fuzz(func(t *testing.T, text string, kind uint32) {
		o, ok := parseOwner(text, kind&modeType)
		if !ok {
			return
		}
		again, ok := parseOwner(o.String(), kind&modeType)
		if !ok || again != o {
			t.Fatalf("%q: %+v, then %+v", text, o, again)
		}
		if o.mode&modeType == typeDir && kind&modeType != typeDir {
			t.Fatalf("%q makes a directory of %o", text, kind)
		}
	})
}
