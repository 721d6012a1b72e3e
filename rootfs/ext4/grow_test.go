package ext4

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestGrowKeepsContent(t *testing.T) {
	f := create(t, 20<<20, Options{})
	check := populate(t, f, 20)
	for _, size := range []int64{20<<20 + 100, 21 << 20, 128 << 20, 128<<20 + 5<<20, 300<<20 + 77, 4 << 30, 8 << 30, 8<<30 + 4<<20, 20 << 30, 300 << 30} {
		if err := Grow(f, size); err != nil {
			t.Fatal(size, err)
		}
		fsck(t, f)
		check()
		info, err := Probe(f, size)
		if err != nil || !info.Growable || size-info.Size > 4<<20 {
			t.Errorf("%d: %+v %v", size, info, err)
		}
		if fi, _ := f.Stat(); fi.Size() != size {
			t.Errorf("file has %d bytes", fi.Size())
		}
	}
}

// What grew is as if it had been made so large.
func TestGrowEqualsMake(t *testing.T) {
	for _, from := range []int64{128 << 20, 129 << 20, 1 << 30, 5 << 30} {
		for _, to := range []int64{from + 128<<20, from + 200<<20, 8 << 30, 8<<30 + 130<<20, 64 << 30} {
			t.Run(fmt.Sprint(from, to), func(t *testing.T) {
				f := create(t, from, Options{})
				if err := Grow(f, to); err != nil {
					t.Fatal(err)
				}
				fsck(t, f)
				fresh := create(t, to, Options{})
				a, _ := Probe(f, to)
				b, _ := Probe(fresh, to)
				if a.Size != b.Size {
					t.Errorf("grew to %d, made %d", a.Size, b.Size)
				}
				if got := allocated(t, f); got > 1<<20 {
					t.Errorf("takes %d bytes", got)
				}
			})
		}
	}
}

func TestGrowHuge(t *testing.T) {
	f := create(t, 4<<30, Options{})
	check := populate(t, f, 5)
	if err := Grow(f, 1<<40); err != nil {
		t.Fatal(err)
	}
	fsck(t, f)
	check()
}

// resize2fs finds such a file system in order, and Grow what resize2fs made
// larger.
func TestResize2fs(t *testing.T) {
	f := create(t, 1<<30, Options{})
	check := populate(t, f, 10)
	tool(t, "resize2fs", f.Name(), "3G")
	fsck(t, f)
	if err := Grow(f, 10<<30); err != nil {
		t.Fatal(err)
	}
	fsck(t, f)
	check()
	tool(t, "resize2fs", f.Name(), "12G")
	fsck(t, f)
	check()
}

func TestGrowRefuses(t *testing.T) {
	f := create(t, 256<<20, Options{})
	if err := Grow(f, 128<<20); !errors.Is(err, ErrSize) {
		t.Errorf("smaller: %v", err)
	}
	if err := Grow(f, MaxSize+1); !errors.Is(err, ErrSize) {
		t.Errorf("too large: %v", err)
	}
	if err := Grow(f, 256<<20); err != nil {
		t.Errorf("the same size: %v", err)
	}
	tool(t, "mke2fs", "-q", "-F", "-t", "ext4", f.Name())
	if err := Grow(f, 512<<20); !errors.Is(err, ErrLayout) {
		t.Errorf("mke2fs's layout: %v", err)
	}
	if info, err := Probe(f, 256<<20); err != nil || info.Growable {
		t.Errorf("mke2fs's layout: %+v %v", info, err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := Grow(f, 512<<20); !errors.Is(err, ErrNotExt4) {
		t.Errorf("empty file: %v", err)
	}
	if _, err := Probe(f, 0); !errors.Is(err, ErrNotExt4) {
		t.Errorf("empty file: %v", err)
	}
}

// A crash before the superblock was written leaves bits cleared behind the end.
func TestGrowAfterCrash(t *testing.T) {
	for _, lost := range []string{"super", "descriptors", "bitmap"} {
		t.Run(lost, func(t *testing.T) {
			f := create(t, 200<<20, Options{})
			check := populate(t, f, 10)
			g := newGeometry(200 << 20)
			save := func(off, n int64) func() {
				b := make([]byte, n)
				if _, err := f.ReadAt(b, off); err != nil {
					t.Fatal(err)
				}
				return func() {
					if _, err := f.WriteAt(b, off); err != nil {
						t.Fatal(err)
					}
				}
			}
			undoSuper := save(superAt, superSize)
			undoDescs := save(int64(g.descBlock(0))*BlockSize, BlockSize)
			undoBitmap := save(int64(g.blockBitmap(1))*BlockSize, BlockSize)
			if err := Grow(f, 1<<30); err != nil {
				t.Fatal(err)
			}
			undoSuper()
			switch lost {
			case "descriptors":
				undoDescs()
			case "bitmap":
				undoBitmap()
			}
			if err := Grow(f, 1<<30); err != nil {
				t.Fatal(err)
			}
			fsck(t, f)
			check()
		})
	}
}

// Leftovers behind the end must not become inodes.
func TestGrowOverLeftovers(t *testing.T) {
	f := create(t, 129<<20, Options{})
	junk := make([]byte, 1<<20)
	for i := range junk {
		junk[i] = byte(i)*7 + 1
	}
	if _, err := f.WriteAt(junk, 128<<20); err != nil {
		t.Fatal(err)
	}
	if err := Grow(f, 1<<30); err != nil {
		t.Fatal(err)
	}
	fsck(t, f)
	g := newGeometry(1 << 30)
	b := make([]byte, g.tableBlocks()*BlockSize)
	if _, err := f.ReadAt(b, int64(g.blockBitmap(1)+2)*BlockSize); err != nil {
		t.Fatal(err)
	}
	for _, v := range b {
		if v != 0 {
			t.Fatal("a new inode table is not zero")
		}
	}
}

func TestReplay(t *testing.T) {
	f := create(t, 64<<20, Options{})
	check := populate(t, f, 10)
	dir := t.TempDir()
	block := func(name string, fill byte) string {
		b := make([]byte, BlockSize)
		for i := range b {
			b[i] = fill
		}
		if name == "magic" {
			be.PutUint32(b, jMagic) // is escaped in the log
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// Free blocks near the end, so that e2fsck does not mind.
	cmds := fmt.Sprintf(`jo -c -v 3
jw -b 16000 %s
jw -b 16001,16002 %s
jw -b 16003 %s
jw -r 16001
jw -b 16002 %s
jc
`, block("a", 'a'), block("bb", 'b'), block("magic", 'm'), block("c", 'c'))
	// Each jw wants a block of data for each block named.
	two, err := os.ReadFile(filepath.Join(dir, "bb"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bb"), append(two, two...), 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte(cmds), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Log(tool(t, "debugfs", "-w", "-f", script, f.Name()))
	if info, err := Probe(f, 64<<20); err != nil || !info.NeedsRecovery {
		t.Fatalf("debugfs left no journal to replay: %+v %v", info, err)
	}

	peer, err := os.Create(filepath.Join(dir, "peer"))
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if _, err := io.Copy(peer, io.NewSectionReader(f, 0, 64<<20)); err != nil {
		t.Fatal(err)
	}
	tool(t, "debugfs", "-w", "-R", "jr", peer.Name())

	if err := Grow(f, 512<<20); err != nil {
		t.Fatal(err)
	}
	fsck(t, f)
	check()
	if info, err := Probe(f, 512<<20); err != nil || info.NeedsRecovery {
		t.Errorf("%+v %v", info, err)
	}
	for at := int64(16000); at < 16004; at++ {
		got, want := make([]byte, BlockSize), make([]byte, BlockSize)
		if _, err := f.ReadAt(got, at*BlockSize); err != nil {
			t.Fatal(err)
		}
		if _, err := peer.ReadAt(want, at*BlockSize); err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("block %d begins with %x, after debugfs's replay with %x", at, got[:8], want[:8])
		}
	}
}
