package share

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// client speaks FUSE byte by byte, with all the ways to do it wrong.
type client struct {
	t      testing.TB
	s      *Server
	unique uint64
}

func newClient(t testing.TB, s *Server) *client {
	c := &client{t: t, s: s}
	if e, _ := c.call(opInit, 0, initArgs(), 64); e != 0 {
		t.Fatalf("init: %v", e)
	}
	return c
}

var le = binary.LittleEndian

func u32s(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = le.AppendUint32(b, x)
	}
	return b
}

func u64s(v ...uint64) []byte {
	var b []byte
	for _, x := range v {
		b = le.AppendUint64(b, x)
	}
	return b
}

func join(p ...[]byte) []byte { return bytes.Join(p, nil) }

func cstr(names ...string) []byte { return []byte(strings.Join(names, "\x00") + "\x00") }

func initArgs() []byte { return append(u32s(7, 37, 1<<20, math.MaxUint32, 0), make([]byte, 44)...) }

func (c *client) header(op uint32, node uint64, n int) []byte {
	c.unique++
	return join(u32s(uint32(headerLen+n), op), u64s(c.unique, node), u32s(0, 0, 1, 0))
}

// call sends a request and returns the error and the body of the reply, for which
// there is room for n bytes.
func (c *client) call(op uint32, node uint64, args []byte, n int) (unix.Errno, []byte) {
	c.t.Helper()
	return c.raw(join(c.header(op, node, len(args)), args), n)
}

func (c *client) raw(req []byte, n int) (unix.Errno, []byte) {
	c.t.Helper()
	out := make([]byte, outHeaderLen+n)
	// Cut anywhere: a guest may choose.
	cut := len(req) / 3
	got := c.s.Serve([][]byte{req[:cut], nil, req[cut:]}, [][]byte{out[:7], out[7:]})
	if got > len(out) {
		c.t.Fatalf("reply of %d bytes in %d", got, len(out))
	}
	if got < outHeaderLen {
		return 0xfff, nil
	}
	if l := le.Uint32(out); int(l) != got {
		c.t.Fatalf("reply of %d bytes says %d", got, l)
	}
	return unix.Errno(-int32(le.Uint32(out[4:]))), out[outHeaderLen:got]
}

// lookup returns the number of a path's node, 0 if there is none.
func (c *client) lookup(from uint64, path string) uint64 {
	c.t.Helper()
	for name := range strings.SplitSeq(path, "/") {
		e, b := c.call(opLookup, from, cstr(name), 128)
		if e != 0 {
			return 0
		}
		from = le.Uint64(b)
	}
	return from
}

func (c *client) open(node uint64, flags uint32) (unix.Errno, uint64) {
	e, b := c.call(opOpen, node, u32s(flags, 0), 16)
	if e != 0 {
		return e, 0
	}
	return 0, le.Uint64(b)
}

func (c *client) read(node, fh uint64, n uint32) (unix.Errno, []byte) {
	return c.call(opRead, node, join(u64s(fh, 0), u32s(n, 0), u64s(0), u32s(0, 0)), int(n))
}

func (c *client) write(node, fh, off uint64, data []byte) unix.Errno {
	e, _ := c.call(opWrite, node, join(u64s(fh, off), u32s(uint32(len(data)), 0), u64s(0), u32s(0, 0), data), 8)
	return e
}

// scene is a share beside what must not be reached.
type scene struct {
	dir, outside string
	before       map[string]string
}

const secret = "the secret outside"

func newScene(t testing.TB) *scene {
	t.Helper()
	top := t.TempDir()
	sc := &scene{dir: filepath.Join(top, "share"), outside: filepath.Join(top, "outside")}
	for _, d := range []string{sc.dir, sc.dir + "/sub", sc.outside, sc.outside + "/sub"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		sc.dir + "/file": "inside", sc.dir + "/sub/file": "inside", sc.outside + "/file": secret, sc.outside + "/sub/file": secret,
		top + "/file": secret,
	} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"up": "..", "out": "../outside", "abs": sc.outside, "leak": "../outside/file", "self": "self", "etc": "/etc",
	} {
		if err := os.Symlink(target, filepath.Join(sc.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	sc.before = sc.state(t)
	return sc
}

// state is all there is to know of what lies outside.
func (sc *scene) state(t testing.TB) map[string]string {
	t.Helper()
	m := map[string]string{}
	top := filepath.Dir(sc.outside)
	err := filepath.Walk(top, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if path == sc.dir {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		desc := fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Nlink, st.Size)
		if path != top { // its time changes when the share is swapped
			desc += fmt.Sprint(st.Mtim)
		}
		if fi.Mode().IsRegular() {
			b, _ := os.ReadFile(path)
			names := make([]byte, 4096)
			n, _ := unix.Listxattr(path, names)
			desc += string(b) + string(names[:max(n, 0)])
		}
		m[path] = desc
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (sc *scene) check(t testing.TB) {
	t.Helper()
	if now := sc.state(t); !maps.Equal(now, sc.before) {
		t.Errorf("outside was changed:\n%v\nwas\n%v", now, sc.before)
	}
}

// everyName sends each operation that takes a name with it.
func (c *client) everyName(dir, file uint64, name string) {
	call := func(op uint32, node uint64, args []byte) { c.call(op, node, args, 4096) }
	call(opLookup, dir, cstr(name))
	call(opMkdir, dir, join(u32s(0o755, 0), cstr(name)))
	call(opMknod, dir, join(u32s(unix.S_IFREG|0o644, 0, 0, 0), cstr(name)))
	call(opCreate, dir, join(u32s(unix.O_RDWR|unix.O_TRUNC, 0o644, 0, 0), cstr(name)))
	call(opSymlink, dir, cstr(name, "/etc/passwd"))
	call(opLink, dir, join(u64s(file), cstr(name)))
	call(opRename, dir, join(u64s(dir), cstr("nothing", name)))
	call(opRename2, dir, join(u64s(dir), u32s(unix.RENAME_EXCHANGE, 0), cstr("sub", name)))
	call(opRename2, dir, join(u64s(dir), u32s(0, 0), cstr(name, "stolen")))
	call(opUnlink, dir, cstr(name))
	call(opRmdir, dir, cstr(name))
	call(opSetxattr, dir, join(u32s(1, 0), cstr("user."+name), []byte{1}))
}

func TestHostileNames(t *testing.T) {
	sc := newScene(t)
	s, _ := newServer(t, Options{Path: sc.dir})
	c := newClient(t, s)
	root := c.lookup(1, "data")
	file := c.lookup(root, "file")
	if root == 0 || file == 0 {
		t.Fatal("no export")
	}
	for _, name := range []string{
		"", ".", "..", "../file", "/", "/etc/passwd", "sub/../../outside/file", "../outside", "sub/file", "file/", "./file",
		"..\x00x", "\x00", strings.Repeat("../", 80) + "etc/passwd", strings.Repeat("n", 256), strings.Repeat("n", 5000),
	} {
		if e, _ := c.call(opLookup, root, cstr(name), 128); e == 0 {
			t.Errorf("lookup of %q succeeded", name)
		}
		if e, _ := c.call(opLookup, 1, cstr(name), 128); e == 0 {
			t.Errorf("lookup of %q in the root succeeded", name)
		}
		c.everyName(root, file, name)
		c.everyName(1, file, name)
	}
	// Without the final NUL, and with names where there should be none.
	c.raw(join(c.header(opLookup, root, 2), []byte("..")), 128)
	c.raw(join(c.header(opSymlink, root, 4), []byte("a\x00..")), 128)
	c.raw(join(c.header(opRename, root, 12), u64s(root), []byte("file")), 128)
	sc.check(t)
	if c.lookup(root, "sub/file") == 0 || c.lookup(root, "file") == 0 {
		t.Error("a bad name changed a file")
	}
}

// Links of the share lead outside, and the guest asks for what is behind them.
func TestHostileLinks(t *testing.T) {
	sc := newScene(t)
	s, _ := newServer(t, Options{Path: sc.dir})
	c := newClient(t, s)
	root := c.lookup(1, "data")
	for _, name := range []string{"up", "out", "abs", "leak", "self", "etc"} {
		link := c.lookup(root, name)
		if link == 0 {
			t.Fatalf("%s cannot be looked up", name)
		}
		if e, b := c.call(opReadlink, link, nil, 4096); e != 0 || len(b) == 0 {
			t.Errorf("%s: readlink: %v", name, e)
		}
		if n := c.lookup(link, "file"); n != 0 {
			t.Errorf("%s/file was found", name)
		}
		if e, fh := c.open(link, unix.O_RDWR); e == 0 {
			_, b := c.read(link, fh, 100)
			t.Errorf("%s was opened: %q", name, b)
		}
		if e, _ := c.call(opOpendir, link, u32s(0, 0), 16); e == 0 {
			t.Errorf("%s was opened as a directory", name)
		}
		c.everyName(link, link, "file")
		c.setattr(link, unix.S_IFREG|0o777, 0)
		c.call(opSetxattr, link, join(u32s(1, 0), cstr("user.x"), []byte{1}), 0)
		c.call(opSetxattr, link, join(u32s(1, 0), cstr("security.capability"), []byte{1}), 0)
		c.call(opRemovexattr, link, cstr("user.x"), 0)
		c.call(opGetxattr, link, join(u32s(100, 0), cstr("user.x")), 100)
		if e, _ := c.call(opLink, root, join(u64s(link), cstr("hard-"+name)), 128); e != 0 {
			t.Errorf("link of %s: %v", name, e)
		} else if st, err := os.Lstat(sc.dir + "/hard-" + name); err != nil || st.Mode()&os.ModeSymlink == 0 {
			t.Errorf("a link of link %s is not a link: %v", name, err)
		}
	}
	sc.check(t)
}

// setattr sets all there is: mode, owner, size, times.
func (c *client) setattr(node uint64, mode, size uint32) unix.Errno {
	valid := uint32(1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5)
	e, _ := c.call(opSetattr, node, join(u32s(valid, 0), u64s(0, uint64(size), 0, 1, 1, 1), u32s(0, 0, 0, mode, 0, 12, 34, 0)), 128)
	return e
}

// While the guest works in the share, the host swaps its directories and files
// for links that lead outside. Whatever is read and changed must be inside.
func TestHostRaces(t *testing.T) {
	sc := newScene(t)
	cfg := Config{MaxDirs: 1, OnPanic: func(v any) { t.Errorf("panic: %v", v) }}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Add("data", Options{Path: sc.dir}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	// The host: sub ↔ link to outside/sub, file ↔ link to outside/file.
	for _, v := range []struct{ name, target string }{{"sub", "../outside/sub"}, {"file", "../outside/file"}} {
		wg.Go(func() {
			real, parked, link := filepath.Join(sc.dir, v.name), filepath.Join(sc.dir, v.name+".parked"), filepath.Join(sc.dir, v.name+".link")
			os.Symlink(v.target, link)
			for {
				select {
				case <-stop:
					return
				default:
				}
				os.Rename(real, parked)
				os.Rename(link, real)
				os.Rename(real, link)
				os.Rename(parked, real)
				unix.Renameat2(unix.AT_FDCWD, real, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
				unix.Renameat2(unix.AT_FDCWD, real, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		})
	}
	c0 := newClient(t, s)
	var inside, refused int
	deadline := time.Now().Add(2 * time.Second)
	root := c0.lookup(1, "data")
	for i := 0; time.Now().Before(deadline); i++ {
		c := c0
		sub := c.lookup(root, "sub")
		other := c.lookup(root, "out") // uses up the one cached directory
		c.lookup(other, "x")
		for _, node := range []uint64{c.lookup(root, "file"), c.lookup(sub, "file")} {
			if node == 0 {
				refused++
				continue
			}
			e, fh := c.open(node, unix.O_RDWR)
			if e != 0 {
				refused++
				continue
			}
			if _, b := c.read(node, fh, 100); bytes.Contains(b, []byte(secret)) {
				t.Fatal("the secret was read")
			}
			c.write(node, fh, 0, []byte("INSIDE"))
			c.setattr(node, 0o777, 6)
			c.call(opSetxattr, node, join(u32s(1, 0), cstr("user.x"), []byte{1}), 0)
			c.call(opRelease, node, join(u64s(fh), u32s(0, 0), u64s(0)), 0)
			inside++
		}
		name := fmt.Sprint("new", i%7)
		c.call(opCreate, sub, join(u32s(unix.O_RDWR, 0o644, 0, 0), cstr(name)), 256)
		c.call(opMkdir, sub, join(u32s(0o755, 0), cstr(name+"d")), 256)
		c.call(opLink, sub, join(u64s(c.lookup(root, "file")), cstr(name+"l")), 256)
		c.call(opRename, sub, join(u64s(root), cstr(name, name)), 0)
		c.call(opUnlink, root, cstr(name), 0)
		c.call(opUnlink, sub, cstr(name+"l"), 0)
		c.call(opRmdir, sub, cstr(name+"d"), 0)
	}
	close(stop)
	wg.Wait()
	sc.check(t)
	if inside == 0 || refused == 0 {
		t.Errorf("%d worked, %d were refused: the race was none", inside, refused)
	}
	t.Logf("%d worked, %d were refused", inside, refused)
}

func TestForgedNumbers(t *testing.T) {
	sc := newScene(t)
	s, _ := newServer(t, Options{Path: sc.dir})
	c := newClient(t, s)
	root := c.lookup(1, "data")
	file, other := c.lookup(root, "file"), c.lookup(root, "sub/file")
	_, fh := c.open(file, unix.O_RDONLY)
	e, b := c.call(opOpendir, root, u32s(0, 0), 16)
	if e != 0 {
		t.Fatal(e)
	}
	dh := le.Uint64(b)
	want := func(what string, got, want unix.Errno) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	e, _ = c.read(other, fh, 10)
	want("a handle of another node", e, unix.EBADF)
	want("a write to a handle for reading", c.write(file, fh, 0, []byte("x")), unix.EBADF)
	e, _ = c.read(root, dh, 10)
	want("a read of a directory", e, unix.EBADF)
	e, _ = c.call(opReaddir, file, join(u64s(fh, 0), u32s(100, 0), u64s(0), u32s(0, 0)), 100)
	want("readdir of a file", e, unix.ENOTDIR)
	e, _ = c.call(opReaddir, root, join(u64s(dh, 1<<62+12345), u32s(4096, 0), u64s(0), u32s(0, 0)), 4096)
	if e != 0 && e != unix.EINVAL {
		t.Errorf("readdir at a forged offset: %v", e)
	}
	c.call(opForget, file, u64s(math.MaxUint64), 0)
	c.call(opForget, file, u64s(math.MaxUint64), 0)
	e, _ = c.read(file, fh, 10)
	want("a file that is forgotten but open", e, 0)
	c.call(opRelease, file, join(u64s(fh), u32s(0, 0), u64s(0)), 0)
	e, _ = c.read(file, fh, 10)
	want("a closed handle", e, unix.EBADF)
	e, _ = c.call(opGetattr, file, make([]byte, 16), 128)
	want("a forgotten node", e, unix.ESTALE)
	for op := range opArgs {
		if op == opInit || op == opDestroy {
			continue
		}
		for _, id := range []uint64{0, 1, 2, root, other, 1 << 40, math.MaxUint64, math.MaxUint64 - 1} {
			for _, arg := range []uint64{0, id, math.MaxUint64, math.MaxInt64, 1 << 32} {
				args := join(u64s(arg, arg, arg, arg, arg, arg, arg, arg, arg, arg, arg), cstr("a", "b"))
				if op == opWrite {
					args = join(u64s(arg, arg), u32s(5, 0), u64s(arg), u32s(0, 0), []byte("hello"))
				}
				c.call(op, id, args, 256)
			}
		}
	}
	sc.check(t)
	if root = c.lookup(1, "data"); root == 0 || c.lookup(root, "sub") == 0 {
		t.Error("the server does not work any more")
	}
}

// Requests of every length, replies with too little room, sizes that lie.
func TestOddSizes(t *testing.T) {
	sc := newScene(t)
	s, _ := newServer(t, Options{Path: sc.dir})
	if got := s.Serve([][]byte{make([]byte, 40)}, [][]byte{make([]byte, 16)}); got != outHeaderLen {
		t.Errorf("a request before INIT: reply of %d bytes", got)
	}
	c := newClient(t, s)
	if e, _ := c.call(opInit, 0, initArgs(), 64); e != unix.EINVAL {
		t.Errorf("a second INIT: %v", e)
	}
	root := c.lookup(1, "data")
	for op := uint32(0); op < 60; op++ {
		if op == opInit || op == opDestroy {
			continue
		}
		for n := range 160 {
			body := make([]byte, n)
			c.call(op, root, body, 300)
			c.call(op, root, body, 0)
			full := join(c.header(op, root, 120), body)
			c.raw(full, 64)
			if n < headerLen {
				c.raw(full[:n], 64)
			}
		}
		s.Serve(nil, nil)
		s.Serve([][]byte{c.header(op, root, 0)}, nil)
	}
	file := c.lookup(root, "file")
	_, fh := c.open(file, unix.O_RDWR)
	for _, n := range []uint32{MaxRequestBytes + 1, math.MaxUint32} {
		if e, _ := c.call(opRead, file, join(u64s(fh, 0), u32s(n, 0), u64s(0), u32s(0, 0)), 100); e != unix.EINVAL {
			t.Errorf("read of %d bytes: %v", n, e)
		}
	}
	if e, _ := c.call(opRead, file, join(u64s(fh, 0), u32s(1000, 0), u64s(0), u32s(0, 0)), 100); e != unix.EIO {
		t.Errorf("read without room: %v", e)
	}
	if e := c.write(file, fh, math.MaxUint64-1, []byte("x")); e != unix.EFBIG {
		t.Errorf("write at the end of all numbers: %v", e)
	}
	if e := c.write(file, fh, 0, make([]byte, MaxRequestBytes+1)); e != unix.EINVAL {
		t.Errorf("write of too much: %v", e)
	}
	if e, _ := c.call(opSetxattr, file, join(u32s(1, 0), cstr("user.x"), make([]byte, maxSmall)), 0); e != unix.EINVAL {
		t.Errorf("attribute of too much: %v", e)
	}
	sc.check(t)
}

// A guest that holds on to everything costs the host a bounded number of
// descriptors and nodes.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	const dirs = 300
	for i := range dirs {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(i), "below"), 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, fmt.Sprint(i), "below", "file"), nil, 0o644)
	}
	s, err := New(Config{MaxDirs: 20, MaxHandles: 30, MaxNodes: 800})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Add("data", Options{Path: dir}); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, s)
	before := openFiles(t)
	root := c.lookup(1, "data")
	nodes := 0
	for i := range dirs {
		if c.lookup(root, fmt.Sprint(i)+"/below/file") != 0 {
			nodes++
		}
	}
	if nodes == 0 || nodes == dirs {
		t.Errorf("%d of %d files with room for 800 nodes", nodes, dirs)
	}
	if n := openFiles(t) - before; n > 25 {
		t.Errorf("%d descriptors for 20 directories", n)
	}
	if n := c.lookup(root, "0/below/file"); n == 0 {
		t.Error("a known file is not found any more")
	}
	file := c.lookup(root, "1/below/file")
	opened := 0
	for range 100 {
		if e, _ := c.open(file, unix.O_RDONLY); e == 0 {
			opened++
		} else if e != unix.ENFILE {
			t.Fatalf("open: %v", e)
		}
	}
	if opened != 30 {
		t.Errorf("%d files open, want 30", opened)
	}
	s.Reset()
	if n := openFiles(t) - before; n > 0 {
		t.Errorf("%d descriptors left after a reset", n)
	}
	c = newClient(t, s)
	if c.lookup(1, "data/7/below/file") == 0 {
		t.Error("nothing is found after a reset")
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// Devices, pipes and sockets of the host are shown and never opened.
func TestHostSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/socket"}); err != nil {
		t.Fatal(err)
	}
	names := []string{"fifo", "socket"}
	if unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, 1<<8|3) == nil {
		names = append(names, "null")
	}
	s, _ := newServer(t, Options{Path: dir})
	c := newClient(t, s)
	root := c.lookup(1, "data")
	for _, name := range names {
		n := c.lookup(root, name)
		for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_TRUNC} {
			if e, _ := c.open(n, flags); e != unix.EPERM {
				t.Errorf("open of %s: %v, want EPERM", name, e)
			}
		}
		if e, _ := c.call(opCreate, root, join(u32s(unix.O_RDWR, 0o644, 0, 0), cstr(name)), 256); e != unix.EPERM {
			t.Errorf("create of %s: %v, want EPERM", name, e)
		}
	}
}

// FuzzServe sends sequences of requests and looks that nothing outside changes.
func FuzzServe(f *testing.F) {
	f.Add([]byte{1, 2, 0, 3, 'f', 'i', 'l', 'e', 0})
	f.Add([]byte{35, 1, 2, 20, 2, 0, 0, 0, 0xa4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'n', 'e', 'w', 0})
	f.Add([]byte{12, 1, 0, 14, 2, 0, 0, 0, 0, 0, 0, 0, '.', '.', 0, 'x', 0})
	sc := newScene(f)
	s, err := New(Config{MaxNodes: 1000, MaxHandles: 100, MaxDirs: 2, OnPanic: func(v any) { panic(v) }})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	if err := s.Add("data", Options{Path: sc.dir, Quota: 64 << 20}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s.Reset()
		c := newClient(t, s)
		c.lookup(1, "data/sub/file")
		rnd := rand.New(rand.NewPCG(1, uint64(len(data))))
		for n := 0; len(data) >= 4 && n < 64; n++ {
			op, node, kind, size := uint32(data[0]%60), uint64(data[1]%12), data[2], int(data[3])
			data = data[4:]
			size = min(size, len(data))
			args := data[:size]
			data = data[size:]
			if op == opFallocate || op == opDestroy {
				continue // fills the disk, if it may; ends the session
			}
			switch req := join(c.header(op, node, len(args)), args); kind % 4 {
			case 0:
				c.raw(req, rnd.IntN(5000))
			case 1:
				c.raw(req[:rnd.IntN(len(req)+1)], 200)
			default:
				c.raw(req, 4096)
			}
		}
		sc.check(t)
	})
}
