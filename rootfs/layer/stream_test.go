package layer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// TestStreams: layers that cannot be read, or are not what they should be.
func TestStreams(t *testing.T) {
	good := pack(t, file("a", strings.Repeat("content", 100000)), file("b", "2"))
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(good))
	broken := errors.New("connection lost")
	cut := func(l Layer, n int64, end error) Layer {
		open := l.Open
		l.Open = func(ctx context.Context) (io.ReadCloser, error) {
			r, err := open(ctx)
			return io.NopCloser(io.MultiReader(io.LimitReader(r, n), failing{end})), err
		}
		return l
	}
	with := func(l Layer, diffID string) Layer {
		l.DiffID = diffID
		return l
	}
	noise := plain(bytes.Repeat([]byte("noise"), 1000))
	noiseGzip, noiseZstd := noise, noise
	noiseGzip.Compression, noiseZstd.Compression = Gzip, Zstd
	odd := noise
	odd.Compression = 9
	for _, c := range []struct {
		name string
		l    Layer
		want error
	}{
		{"good", with(plain(good), sum), nil},
		{"good gzip", with(squeeze(t, Gzip, good), sum), nil},
		{"good zstd", with(squeeze(t, Zstd, good), sum), nil},
		{"bytes behind the end", plain(append(bytes.Clone(good), make([]byte, 1<<20)...)), nil},
		{"two streams of gzip", plain2(t, good), nil},
		{"empty", plain(nil), nil}, // what archive/tar and runtimes take for an empty layer
		{"digest", with(plain(good), "sha256:"+strings.Repeat("0", 64)), ErrDigest},
		{"digest behind the end", with(plain(append(bytes.Clone(good), 1)), sum), ErrDigest},
		{"noise", noise, ErrFormat},
		{"noise as gzip", noiseGzip, ErrFormat},
		{"noise as zstd", noiseZstd, ErrFormat},
		{"unknown compression", odd, errors.ErrUnsupported},
		{"cut in a header", cut(plain(good), 100, nil), ErrFormat},
		{"cut in content", cut(plain(good), 100000, nil), ErrFormat},
		{"gzip cut", cut(squeeze(t, Gzip, good), 1000, nil), ErrFormat},
		{"zstd cut", cut(squeeze(t, Zstd, good), 60, nil), ErrFormat},
		{"connection lost", cut(plain(good), 100000, broken), broken},
		{"connection lost in gzip", cut(squeeze(t, Gzip, good), 1000, broken), broken},
		{"connection lost in zstd", cut(squeeze(t, Zstd, good), 60, broken), broken},
		{"does not open", Layer{Open: func(context.Context) (io.ReadCloser, error) { return nil, broken }}, broken},
		{"does not close", Layer{Open: func(context.Context) (io.ReadCloser, error) {
			return &closing{bytes.NewReader(good), broken}, nil
		}}, broken},
		{"no Open", Layer{}, errors.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.l.Name = "some digest"
			_, err := Convert(context.Background(), []Layer{plain(good), c.l}, tempImage(t), Options{})
			var e *Error
			if !errors.Is(err, c.want) || err != nil && (!errors.As(err, &e) || e.Layer != 1 || !strings.Contains(err.Error(), "layer 1 (some digest)")) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
			if c.want == broken && errors.Is(err, ErrFormat) {
				t.Errorf("error is %v: not the format's fault", err)
			}
		})
	}
}

// plain2 is one layer in two gzip members.
func plain2(t testing.TB, b []byte) Layer {
	x, y := squeeze(t, Gzip, b[:5000]), squeeze(t, Gzip, b[5000:])
	var all []byte
	for _, l := range []Layer{x, y} {
		r, _ := l.Open(context.Background())
		p, _ := io.ReadAll(r)
		all = append(all, p...)
	}
	l := plain(all)
	l.Compression = Gzip
	return l
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

type closing struct {
	io.Reader
	err error
}

func (c *closing) Close() error { return c.err }

// TestCancel: ctx ends a conversion whose layer does not come.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	l := Layer{Open: func(ctx context.Context) (io.ReadCloser, error) {
		context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
		return r, nil
	}}
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Convert(ctx, []Layer{l}, tempImage(t), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

// TestRefusedEarly: a layer that is refused while more of it is to come.
func TestRefusedEarly(t *testing.T) {
	r, w := io.Pipe()
	go func() {
		w.Write(pack(t, hard("a", "none"))[:512])
		w.Write(make([]byte, pieceSize)) // and then nothing
	}()
	l := Layer{Open: func(ctx context.Context) (io.ReadCloser, error) {
		context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
		return r, nil
	}}
	if _, err := Convert(context.Background(), []Layer{l}, tempImage(t), Options{}); !errors.Is(err, ErrLink) {
		t.Errorf("error is %v", err)
	}
}

// TestImageNotWritable: an image file that takes no bytes is no layer's fault.
func TestImageNotWritable(t *testing.T) {
	f := tempImage(t)
	ro, err := os.Open(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	for _, size := range []int{1, 3 << 20} {
		_, err = Convert(context.Background(), []Layer{plain(pack(t, file("a", strings.Repeat("x", size))))}, ro, Options{})
		if err == nil || errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes: error is %v", size, err)
		}
	}
}

// TestBomb: a small layer that unpacks to more than the limit ends there.
func TestBomb(t *testing.T) {
	var e entry
	e.Typeflag, e.Name, e.Size, e.data = '0', "zeros", 64<<20, strings.Repeat("\x00", 64<<20)
	l := squeeze(t, Gzip, pack(t, e))
	if l.Size > 1<<20 {
		t.Fatalf("bomb of %d bytes", l.Size)
	}
	for _, limits := range []Limits{{TotalBytes: 16 << 20}, {FileBytes: 16 << 20}} {
		f := tempImage(t)
		_, err := Convert(context.Background(), []Layer{l}, f, Options{Limits: limits})
		if st, _ := f.Stat(); !errors.Is(err, ErrLimit) || st.Size() > 1<<20 {
			t.Errorf("error is %v, image of %d bytes", err, st.Size())
		}
	}
	// Behind the end of the archive, too.
	tail := plain(append(pack(t), make([]byte, 8<<20)...))
	if _, err := Convert(context.Background(), []Layer{tail}, tempImage(t), Options{Limits: Limits{TotalBytes: 1 << 20}}); !errors.Is(err, ErrLimit) {
		t.Errorf("error is %v", err)
	}
	// Within the limits it is a hole.
	f := tempImage(t)
	stats, err := Convert(context.Background(), []Layer{l}, f, Options{})
	if err != nil || stats.ImageBytes > 1<<20 {
		t.Errorf("%v, image of %d bytes", err, stats.ImageBytes)
	}
}
