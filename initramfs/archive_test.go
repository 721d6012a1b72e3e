package initramfs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/hutchvm/hutch/internal/artifact"
)

func mustBuild(t testing.TB, agent string, extra ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Build(&b, []byte(agent), extra...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type entry struct {
	Mode uint64
	Dev  [2]uint64
	Data string
}

func read(t *testing.T, archive []byte) map[string]entry {
	t.Helper()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]entry{}
	inodes := map[uint64]bool{}
	for _, r := range records {
		if r.Name == cpio.Trailer {
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		if err != nil {
			t.Fatal(err)
		}
		if r.UID != 0 || r.GID != 0 || r.MTime != 0 {
			t.Errorf("%s: owner %d:%d, time %d", r.Name, r.UID, r.GID, r.MTime)
		}
		if inodes[r.Ino] {
			t.Errorf("%s: inode %d is taken", r.Name, r.Ino)
		}
		inodes[r.Ino] = true
		got[r.Name] = entry{r.Mode, [2]uint64{r.Rmajor, r.Rminor}, string(data)}
	}
	return got
}

func TestBuild(t *testing.T) {
	extra := []File{{"etc/deep/file", 0o640, []byte("text")}, {"etc/other", 0o600, nil}}
	archive := mustBuild(t, "the agent", extra...)
	dir := entry{Mode: cpio.S_IFDIR | 0o755}
	want := map[string]entry{
		"init": {Mode: cpio.S_IFREG | 0o755, Data: "the agent"},
		"dev":  dir, "proc": dir, "run": dir, "sys": dir,
		"dev/console": {Mode: cpio.S_IFCHR | 0o600, Dev: [2]uint64{5, 1}},
		"dev/null":    {Mode: cpio.S_IFCHR | 0o666, Dev: [2]uint64{1, 3}},
		"etc":         dir, "etc/deep": dir,
		"etc/deep/file": {Mode: cpio.S_IFREG | 0o640, Data: "text"},
		"etc/other":     {Mode: cpio.S_IFREG | 0o600},
	}
	if diff := cmp.Diff(want, read(t, archive)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !bytes.Equal(archive, mustBuild(t, "the agent", extra...)) {
		t.Error("not deterministic")
	}
	if err := Check(bytes.NewReader(archive), int64(len(archive))); err != nil {
		t.Error(err)
	}
}

func TestBuildErrors(t *testing.T) {
	for name, want := range map[string]error{
		"init": fs.ErrExist, "dev/console": fs.ErrExist, "proc": fs.ErrExist,
		"/etc/x": fs.ErrInvalid, "../x": fs.ErrInvalid, "a//b": fs.ErrInvalid, "": fs.ErrInvalid, ".": fs.ErrInvalid, "a\x00b": fs.ErrInvalid,
	} {
		var e *Error
		if err := Build(io.Discard, nil, File{Name: name}); !errors.Is(err, want) || !errors.As(err, &e) {
			t.Errorf("%q: %v", name, err)
		}
	}
	boom := errors.New("boom")
	if err := Build(failingWriter{boom}, nil); !errors.Is(err, boom) {
		t.Errorf("failing writer: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func packGzip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packZstd(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

func patch(b []byte, off int, s string) []byte {
	b = bytes.Clone(b)
	copy(b[off:], s)
	return b
}

func TestCheck(t *testing.T) {
	good := mustBuild(t, strings.Repeat("agent", 1000))
	gz, zs := packGzip(t, good), packZstd(t, good)
	zeros := make([]byte, 8192)
	pad := func(b []byte) []byte { return append(bytes.Clone(b), zeros[:-len(b)&3]...) }
	bomb := packZstd(t, append(bytes.Clone(good), make([]byte, 4<<20)...))
	nameless := strings.Index(string(good), "dev") - headerSize // the first header
	for name, tc := range map[string]struct {
		archive []byte
		want    error
		say     string
	}{
		"plain":                    {good, nil, ""},
		"padded":                   {append(bytes.Clone(good), zeros...), nil, ""},
		"zeros in front":           {append(bytes.Clone(zeros), good...), nil, ""},
		"two in a row":             {append(pad(good), good...), nil, ""},
		"gzip":                     {gz, nil, ""},
		"zstd":                     {zs, nil, ""},
		"plain, then gzip":         {append(pad(good), gz...), nil, ""},
		"gzip, then zstd":          {append(append(bytes.Clone(gz), zeros...), zs...), nil, ""},
		"zstd, then gzip":          {append(bytes.Clone(zs), gz...), nil, ""},
		"two inside gzip":          {packGzip(t, append(pad(good), good...)), nil, ""},
		"zeros after, packed":      {bomb, nil, ""},
		"empty":                    {nil, ErrCorrupt, "empty"},
		"only zeros":               {zeros, ErrCorrupt, "only zeros"},
		"garbage":                  {[]byte("#!/bin/sh\necho"), ErrCorrupt, "neither"},
		"xz":                       {[]byte("\xfd7zXZ\x00aaaaaaaaaaa"), ErrCorrupt, "neither"},
		"short":                    {[]byte("07"), ErrCorrupt, "neither"},
		"cut in header":            {good[:50], ErrCorrupt, "header"},
		"cut in name":              {good[:112], ErrCorrupt, "name"},
		"cut in content":           {good[:len(good)-3000], ErrCorrupt, `content of "init"`},
		"no trailer":               {good[:len(good)-124], ErrCorrupt, "before the trailer"},
		"garbage after":            {append(bytes.Clone(good), "garbage"...), ErrCorrupt, "neither"},
		"misaligned second":        {append(append(pad(good), 0), good...), ErrCorrupt, "multiple of 4"},
		"bad magic inside":         {patch(good, nameless+116, "07070X"), ErrCorrupt, "no record header"},
		"bad number":               {patch(good, nameless+6+8*6, "0000 010"), ErrCorrupt, "hexadecimal"},
		"huge content":             {patch(good, nameless+6+8*6, "ffffffff"), ErrCorrupt, "content of"},
		"huge name":                {patch(good, nameless+6+8*11, "ffffffff"), ErrCorrupt, "name of"},
		"no name":                  {patch(good, nameless+6+8*11, "00000000"), ErrCorrupt, "name of"},
		"name without end":         {patch(good, nameless+6+8*11, "00000003"), ErrCorrupt, "name does not end"},
		"name longer than it says": {patch(good, nameless+6+8*11, "00000006"), ErrCorrupt, "name does not end"},
		"gzip cut":                 {gz[:len(gz)-20], ErrCorrupt, ""},
		"gzip bad sum":             {patch(gz, len(gz)-8, "xxxx"), ErrCorrupt, "checksum"},
		"gzip of nothing":          {packGzip(t, nil), ErrCorrupt, "empty"},
		"gzip of garbage":          {packGzip(t, []byte(strings.Repeat("garbage", 99))), ErrCorrupt, "no record header"},
		"gzip without trailer":     {packGzip(t, good[:len(good)-124]), ErrCorrupt, "before the trailer"},
		"zstd cut":                 {zs[:len(zs)-9], ErrCorrupt, "zstd"},
		"zstd damaged":             {patch(zs, len(zs)/2, "xxxxxxxx"), ErrCorrupt, ""},
		"zstd header only":         {zs[:5], ErrCorrupt, "zstd"},
		"zstd of nothing":          {packZstd(t, zeros[:1]), ErrCorrupt, "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(bytes.NewReader(tc.archive), int64(len(tc.archive)))
			if !errors.Is(err, tc.want) || (tc.want == nil) != (err == nil) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), tc.say) {
				t.Errorf("%q does not say %q", err, tc.say)
			}
		})
	}
}

// A size that is larger than the file must not send the walk round in circles.
func TestCheckShortFile(t *testing.T) {
	good := mustBuild(t, "agent")
	if err := Check(bytes.NewReader(good), int64(len(good))+100); err == nil {
		t.Error("no error")
	}
}

func FuzzCheck(f *testing.F) {
	good := mustBuild(f, "agent")
	f.Add(good)
	f.Add(packGzip(f, good))
	f.Add(packZstd(f, good))
	f.Add(append(bytes.Clone(good), good...))
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Without the large bound: the fuzzer loves to unpack gigabytes.
		c := &checker{r: bytes.NewReader(b), size: int64(len(b)), left: 1 << 20}
		err := c.archives()
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("undocumented error %v", err)
		}
	})
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	s, err := artifact.ParseSums(sums)
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.Content(archiveContent)
	if err != nil {
		t.Fatal(err)
	}
	open := func() {
		a, err := Open(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer a.Close()
		h := sha256.New()
		if n, err := io.Copy(h, a.File); err != nil || n != a.Size || [32]byte(h.Sum(nil)) != want.Digest {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(open)
	}
	wg.Wait()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	path := filepath.Join(dir, files[0].Name())
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	open()

	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(a.File, a.Size); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
