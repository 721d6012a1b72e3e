package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// words is text that compresses about as well as what images have.
func words(rnd *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+16)
	for len(b) < n {
		if rnd.IntN(4) == 0 {
			b = fmt.Appendf(b, "%x ", rnd.Uint64())
		} else {
			b = fmt.Appendf(b, "word%d ", rnd.IntN(500))
		}
	}
	return b[:n]
}

// synthetic writes a layer of many files to a temporary file. Sizes are as in a
// distribution: most are small, a few hold most bytes.
func synthetic(t testing.TB, c Compression, files int, mean int) (Layer, int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	var w io.WriteCloser = struct {
		io.Writer
		io.Closer
	}{buf, io.NopCloser(nil)}
	switch c {
	case Gzip:
		w = gzip.NewWriter(buf)
	case Zstd:
		w, _ = zstd.NewWriter(buf)
	}
	count := &counting{Writer: w}
	tw := tar.NewWriter(count)
	rnd := rand.New(rand.NewPCG(5, 6))
	text := words(rnd, 16<<20)
	for i := range files {
		size := min(int(rnd.ExpFloat64()*rnd.ExpFloat64()*float64(mean)), len(text)/2)
		h := tar.Header{
			Name: fmt.Sprintf("usr/lib/package-%d/sub%d/file-%d.txt", i/200, i/20%10, i),
			Mode: 0o644, Size: int64(size), ModTime: time.Unix(1700000000+int64(i), 0),
		}
		at := rnd.IntN(len(text) - size)
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(text[at : at+size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if c != None {
		w.Close()
	}
	buf.Flush()
	name := f.Name()
	st, _ := f.Stat()
	return Layer{
		Compression: c, Size: st.Size(),
		Open: func(context.Context) (io.ReadCloser, error) { return os.Open(name) },
	}, count.n
}

type counting struct {
	io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

func BenchmarkConvert(b *testing.B) {
	for _, c := range []struct {
		name string
		c    Compression
	}{{"none", None}, {"gzip", Gzip}, {"zstd", Zstd}} {
		b.Run(c.name, func(b *testing.B) {
			l, n := synthetic(b, c.c, 20000, 12<<10)
			b.SetBytes(n)
			for b.Loop() {
				f := tempImage(b)
				if _, err := Convert(context.Background(), []Layer{l}, f, Options{}); err != nil {
					b.Fatal(err)
				}
				os.Remove(f.Name())
				f.Close()
			}
		})
	}
}

// peak samples the memory that the runtime has from the system.
func peak(stop <-chan struct{}) <-chan uint64 {
	out := make(chan uint64)
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		var most uint64
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64()-sample[1].Value.Uint64())
			select {
			case <-stop:
				out <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return out
}

// TestManyFiles: memory stays below 150 MiB for an image of 100,000 files.
func TestManyFiles(t *testing.T) {
	manyFiles(t, 100_000, func(name string) { fsck(t, name) })
}

// BenchmarkLimit shows time and memory for about the most entries that Limits allow.
func BenchmarkLimit(b *testing.B) {
	for b.Loop() {
		manyFiles(b, 450_000, func(string) {})
	}
}

func manyFiles(t testing.TB, files int, check func(name string)) {
	l, n := synthetic(t, Gzip, files, 2<<10)
	f := tempImage(t)
	runtime.GC()
	stop := make(chan struct{})
	most := peak(stop)
	begin := time.Now()
	stats, err := Convert(context.Background(), []Layer{l}, f, Options{Scratch: t.TempDir()})
	took := time.Since(begin)
	close(stop)
	mib := <-most >> 20
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files, %d MiB of tar: %v, %d MiB of memory, image of %d MiB", files, n>>20, took, mib, stats.ImageBytes>>20)
	if mib > 150 {
		t.Errorf("took %d MiB of memory, should stay below 150", mib)
	}
	check(f.Name())
}

// fsck has the format's own tool look at the image.
func fsck(t testing.TB, name string) {
	t.Helper()
	need(t, "fsck.erofs")
	run(t, "", "fsck.erofs", "--extract", name)
}
