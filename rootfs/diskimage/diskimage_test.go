package diskimage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hutchvm/hutch/virtio/blk"
)

func TestFormatOf(t *testing.T) {
	for path, want := range map[string]Format{"a.raw": Raw, "/x/b.IMG": Raw, "c.qcow2": QCOW2, "d.VMDK": VMDK, "e.qcow": "", "f": "", "g.iso": "", ".raw": Raw} {
		got, err := FormatOf(path)
		if got != want || (err == nil) != (want != "") || want == "" && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

// The content never decides: a raw disk on which a guest wrote a qcow2 header
// stays raw.
func TestFormatIsNotGuessed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	if err := Create(path, QCOW2, 1<<20); err != nil {
		t.Fatal(err)
	}
	img, err := Open(path, Raw, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	b := make([]byte, 512)
	if err := img.ReadAtv([][]byte{b}, 0); err != nil || be.Uint32(b) != qMagic {
		t.Errorf("%x %v", b[:4], err)
	}
	for _, f := range []Format{QCOW2, VMDK, "", "qed"} {
		other := filepath.Join(dir, "other")
		if err := os.WriteFile(other, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(other, f, Options{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", f, err)
		}
	}
}

func TestLocks(t *testing.T) {
	for _, f := range []Format{Raw, QCOW2} {
		t.Run(string(f), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk."+string(f))
			if err := Create(path, f, 1<<20); err != nil {
				t.Fatal(err)
			}
			open := func(ro bool) *Image {
				t.Helper()
				img, err := Open(path, f, Options{ReadOnly: ro})
				if err != nil {
					t.Fatal(err)
				}
				return img
			}
			refused := func(ro bool) {
				t.Helper()
				img, err := Open(path, f, Options{ReadOnly: ro})
				if !errors.Is(err, ErrLocked) {
					t.Errorf("read-only %v: %v", ro, err)
				}
				if err == nil {
					img.Close()
				}
			}
			w := open(false)
			refused(false)
			refused(true)
			out, err := tryQemu(t, "qemu-io", "-f", string(f), "-c", "write 0 512", path)
			if err == nil && !strings.Contains(out, "lock") {
				t.Errorf("qemu-io writes an image that is open here:\n%s", out)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			r1, r2 := open(true), open(true)
			refused(false)
			if out, err := tryQemu(t, "qemu-io", "-r", "-f", string(f), "-c", "read 0 512", path); err != nil {
				t.Errorf("qemu-io cannot read beside a reader: %v\n%s", err, out)
			}
			r1.Close()
			refused(false)
			r2.Close()
			open(false).Close()

			// And the other way round.
			cmd := exec.Command("qemu-io", "-f", string(f), path)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			outPipe, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil { // it is in the package of qemu-img
				t.Fatal(err)
			}
			fmt.Fprintln(in, "read 0 512")
			var buf [64]byte
			_, _ = outPipe.Read(buf[:]) // it has it open now
			refused(false)
			refused(true)
			in.Close()
			_ = cmd.Wait()
		})
	}
}

func TestReadOnly(t *testing.T) {
	for _, f := range []Format{Raw, QCOW2} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := Create(path, f, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		img, err := Open(path, f, Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		b := [][]byte{make([]byte, 512)}
		for what, err := range map[string]error{"write": img.WriteAtv(b, 0), "discard": img.Discard(0, 512), "zero": img.WriteZeroes(0, 512, true)} {
			if !errors.Is(err, blk.ErrReadOnly) {
				t.Errorf("%s %s: %v", f, what, err)
			}
		}
		if err := errors.Join(img.Flush(), img.ReadAtv(b, 0), img.Close(), img.Close()); err != nil {
			t.Error(err)
		}
		if err := img.ReadAtv(b, 0); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	create := func(name, format, options string) string {
		path := filepath.Join(dir, name)
		args := []string{"create", "-f", format}
		if options != "" {
			args = append(args, "-o", options)
		}
		qemu(t, "qemu-img", append(args, path, "1M")...)
		return path
	}
	patch := func(path string, at int64, b ...byte) string {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		path string
		f    Format
		ro   bool
		want error
	}{
		{create("ext.qcow2", "qcow2", "extended_l2=on,cluster_size=128k"), QCOW2, true, ErrUnsupported},
		{create("data.qcow2", "qcow2", "data_file="+filepath.Join(dir, "data.raw")), QCOW2, true, ErrUnsupported},
		{patch(create("crypt.qcow2", "qcow2", ""), 35, 1), QCOW2, true, ErrUnsupported},
		{patch(create("future.qcow2", "qcow2", ""), 72, 0x80), QCOW2, true, ErrUnsupported},
		{patch(create("four.qcow2", "qcow2", ""), 7, 4), QCOW2, true, ErrUnsupported},
		{patch(create("dirty.qcow2", "qcow2", "lazy_refcounts=on"), 79, 1), QCOW2, false, ErrDirty},
		{patch(create("dirty-ro.qcow2", "qcow2", "lazy_refcounts=on"), 79, 1), QCOW2, true, nil},
		{patch(create("bad.qcow2", "qcow2", ""), 79, 2), QCOW2, false, ErrCorrupt},
		{patch(create("bad-ro.qcow2", "qcow2", ""), 79, 2), QCOW2, true, nil},
		{create("stream.vmdk", "vmdk", "subformat=streamOptimized"), VMDK, true, ErrUnsupported},
		{create("two.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"), VMDK, true, ErrUnsupported},
	} {
		img, err := Open(c.path, c.f, Options{ReadOnly: c.ro})
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", filepath.Base(c.path), err, c.want)
		}
		if err == nil {
			img.Close()
		}
	}
}

// Neither a backing file nor an extent leads out of the image's directory.
func TestConfined(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	secret := filepath.Join(dir, "secret.raw")
	if err := errors.Join(os.Mkdir(in, 0o700), os.WriteFile(secret, make([]byte, 1<<20), 0o600), os.Symlink(secret, filepath.Join(in, "link.raw"))); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{secret, "../secret.raw", "link.raw", "/dev/zero", "json:{}", "nbd://localhost/x"} {
		path := filepath.Join(in, fmt.Sprintf("%d.qcow2", i))
		qemu(t, "qemu-img", "create", "-u", "-f", "qcow2", "-b", name, "-F", "raw", path, "1M")
		if img, err := Open(path, QCOW2, Options{AllowBacking: true}); !errors.Is(err, ErrBacking) {
			t.Errorf("backing %s: %v", name, err)
			_ = img.Close()
		}
	}
	for i, name := range []string{secret, "../secret.raw", "link.raw"} {
		path := filepath.Join(in, fmt.Sprintf("%d.vmdk", i))
		text := "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"" + name + "\" 0\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if img, err := Open(path, VMDK, Options{}); err == nil {
			t.Errorf("extent %s was opened", name)
			img.Close()
		}
	}
	// A chain that bites its tail ends as well.
	loop := filepath.Join(in, "loop.qcow2")
	qemu(t, "qemu-img", "create", "-u", "-f", "qcow2", "-b", "loop.qcow2", "-F", "qcow2", loop, "1M")
	for _, ro := range []bool{false, true} {
		if _, err := Open(loop, QCOW2, Options{AllowBacking: true, ReadOnly: ro}); !errors.Is(err, ErrBacking) && !errors.Is(err, ErrLocked) {
			t.Errorf("loop: %v", err)
		}
	}
}

// Many goroutines, each with a part of the disk of its own.
func TestConcurrent(t *testing.T) {
	for _, f := range []Format{Raw, QCOW2, VMDK} {
		t.Run(string(f), func(t *testing.T) {
			const workers, part = 8, 1 << 20
			path := filepath.Join(t.TempDir(), "disk")
			if f == VMDK {
				qemu(t, "qemu-img", "create", "-f", "vmdk", path, fmt.Sprint(workers*part))
			} else if err := Create(path, f, workers*part); err != nil {
				t.Fatal(err)
			}
			img, err := Open(path, f, Options{})
			if err != nil {
				t.Fatal(err)
			}
			all := make([]byte, workers*part)
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					m := &model{t: t, img: &Image{d: shifted{img, int64(w) * part}}, want: all[w*part : (w+1)*part]}
					m.rng = newModel(t, "", f, make([]byte, w)).rng
					for range 100 {
						m.step()
					}
					m.check(0, part)
				})
			}
			wg.Wait()
			m := newModel(t, path, f, all)
			m.img = img
			m.check(0, len(all))
			m.close()
			m.verify()
		})
	}
}

// shifted is a part of a disk.
type shifted struct {
	*Image
	base int64
}

func (s shifted) ReadAtv(b [][]byte, off int64) error  { return s.Image.ReadAtv(b, s.base+off) }
func (s shifted) WriteAtv(b [][]byte, off int64) error { return s.Image.WriteAtv(b, s.base+off) }
func (s shifted) Discard(off, n int64) error           { return s.Image.Discard(s.base+off, n) }
func (s shifted) WriteZeroes(off, n int64, unmap bool) error {
	return s.Image.WriteZeroes(s.base+off, n, unmap)
}
func (s shifted) close() error { return nil }

// Freed clusters are holes in the host's file.
func TestDiscardFreesHostSpace(t *testing.T) {
	for _, f := range []Format{Raw, QCOW2} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := Create(path, f, 64<<20); err != nil {
			t.Fatal(err)
		}
		img, err := Open(path, f, Options{})
		if err != nil {
			t.Fatal(err)
		}
		blocks := func() int64 {
			var st syscall.Stat_t
			if err := errors.Join(img.Flush(), syscall.Stat(path, &st)); err != nil {
				t.Fatal(err)
			}
			return st.Blocks * 512
		}
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		for off := int64(0); off < 32<<20; off += 1 << 20 {
			if err := img.WriteAtv([][]byte{b}, off); err != nil {
				t.Fatal(err)
			}
		}
		before := blocks()
		if err := img.Discard(0, 32<<20); err != nil {
			t.Fatal(err)
		}
		after := blocks()
		if before < 32<<20 || after > 1<<20 {
			t.Errorf("%s: %d bytes on the host before discard, %d after", f, before, after)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		if f == QCOW2 {
			qemu(t, "qemu-img", "check", path)
		}
	}
}

// TestShortContentID: QEMU writes content IDs without leading zeroes, and one
// that is written anew must not grow into what follows.
func TestShortContentID(t *testing.T) {
	dir := t.TempDir()
	for id, ok := range map[string]bool{"1234567": true, "5": true, "89abcdef": true, "": false, "123456789": false, "xyz": false, "+5": false} {
		path := filepath.Join(dir, "d.vmdk")
		text := "# Disk DescriptorFile\nversion=1\nCID=" + id + "\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"flat\" 0\n"
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "flat"), make([]byte, 4096), 0o600)); err != nil {
			t.Fatal(err)
		}
		img, err := Open(path, VMDK, Options{})
		if (err == nil) != ok {
			t.Errorf("CID %q: %v", id, err)
		}
		if err != nil {
			continue
		}
		if err := errors.Join(img.WriteAtv([][]byte{make([]byte, 512)}, 0), img.Close()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || len(got) != len(text) || !strings.Contains(string(got), "\nparentCID=ffffffff\n") {
			t.Errorf("CID %q: %v, then %q", id, err, got)
		}
	}
}
