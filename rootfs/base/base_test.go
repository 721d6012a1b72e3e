package base

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/artifact/build"
	"github.com/hutchvm/hutch/internal/cachefile"
	"github.com/hutchvm/hutch/rootfs/base/internal/product"
)

func mustSums(t *testing.T) *artifact.Sums {
	t.Helper()
	s, err := artifact.ParseSums(sums)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBaseIsCurrent fails when the embedded image was not built from the sources
// as they are now.
func TestBaseIsCurrent(t *testing.T) {
	root, _, err := build.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	now, err := product.Inputs(root)
	if err != nil {
		t.Fatal(err)
	}
	if was := mustSums(t).Inputs; now != was {
		t.Errorf("base.erofs.zst is older than its sources\nrun: make base\n(built from %x, sources are %x)", was, now)
	}
}

func TestProducts(t *testing.T) {
	s := mustSums(t)
	for _, f := range s.Files {
		b, err := os.ReadFile(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(b); got != f.Digest {
			t.Errorf("%s: sha256 %x, recorded is %x", f.Name, got, f.Digest)
		}
	}
	for _, m := range s.Modules {
		if !build.Noticed([]byte(Notice), m.Path, m.Version) {
			t.Errorf("NOTICE lacks %s %s", m.Path, m.Version)
		}
	}
	// The modules are those that go.sum pins.
	goSum, err := os.ReadFile("cmds/go.sum")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Modules {
		if !strings.Contains(string(goSum), m.Path+" "+m.Version+" "+m.Sum+"\n") {
			t.Errorf("cmds/go.sum lacks %s %s %s", m.Path, m.Version, m.Sum)
		}
	}
	if max := 6 << 20; len(packed) > max {
		t.Errorf("image is %d bytes packed, should be at most %d", len(packed), max)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	want, err := mustSums(t).Content(imageContent)
	if err != nil {
		t.Fatal(err)
	}
	open := func() {
		img, err := Open(dir)
		if err != nil {
			t.Error(err)
			return
		}
		defer img.Close()
		h := sha256.New()
		if n, err := io.Copy(h, img.File); err != nil || n != img.Size || [32]byte(h.Sum(nil)) != want.Digest {
			t.Errorf("%d bytes, %v", n, err)
		}
		if info, err := img.File.Stat(); err != nil || info.Mode() != 0o444 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	var wg sync.WaitGroup
	for range 3 {
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
	img, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if img.Size%4096 != 0 {
		t.Errorf("size %d is not a whole number of blocks", img.Size)
	}
	for range 2 {
		if err := img.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := Open(file); !errors.As(err, &e) {
		t.Errorf("file as cache directory: %v", err)
	}
}

type node struct {
	Mode     fs.FileMode
	UID, GID uint32
	Link     string
}

// TestContents reads the image with somebody else's reader.
func TestContents(t *testing.T) {
	img, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	fsys, err := erofs.Open(img.File)
	if err != nil {
		t.Fatal(err)
	}
	dir := fs.ModeDir
	for path, want := range map[string]node{
		".":                  {Mode: dir | 0o755},
		"bin":                {Mode: dir | 0o755},
		"bin/sh":             {Mode: fs.ModeSymlink | 0o777, Link: product.Box},
		"bin/[":              {Mode: fs.ModeSymlink | 0o777, Link: product.Box},
		"bin/wget":           {Mode: fs.ModeSymlink | 0o777, Link: product.NetBox},
		"bin/" + product.Box: {Mode: 0o755},
		"sbin":               {Mode: fs.ModeSymlink | 0o777, Link: "bin"},
		"usr/bin":            {Mode: fs.ModeSymlink | 0o777, Link: "../bin"},
		"usr/local/bin":      {Mode: dir | 0o755},
		"etc/passwd":         {Mode: 0o644},
		"etc/shadow":         {Mode: 0o600},
		"etc/mtab":           {Mode: fs.ModeSymlink | 0o777, Link: "../proc/self/mounts"},
		"etc/resolv.conf":    {Mode: 0o644},
		"home/user":          {Mode: dir | 0o755, UID: 1000, GID: 1000},
		"root":               {Mode: dir | 0o700},
		"tmp":                {Mode: dir | fs.ModeSticky | 0o777},
		"var/tmp":            {Mode: dir | fs.ModeSticky | 0o777},
		"proc":               {Mode: dir | 0o555},
		"dev":                {Mode: dir | 0o755},
	} {
		info, err := fs.Lstat(fsys, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		st, ok := info.Sys().(*erofs.Stat)
		if !ok {
			t.Fatalf("%s: no stat but %T", path, info.Sys())
		}
		// The reader's FileInfo.Mode keeps raw type bits; this one is clean.
		got := node{Mode: st.Mode, UID: st.UID, GID: st.GID}
		if info.Mode()&fs.ModeSymlink != 0 {
			if got.Link, err = fs.ReadLink(fsys, path); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", path, diff)
		}
	}
	passwd, err := fs.ReadFile(fsys, "etc/passwd")
	if err != nil || !strings.Contains(string(passwd), "\nuser:x:1000:1000:") {
		t.Errorf("passwd: %q, %v", passwd, err)
	}
	// Every file is the one in the tree, and nothing in the image is newer than 1970.
	err = fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().Unix() != 0 {
			t.Errorf("%s: time %v", path, info.ModTime())
		}
		if d.Type().IsRegular() && strings.HasPrefix(path, "etc/") {
			got, err := fs.ReadFile(fsys, path)
			if err != nil {
				return err
			}
			want, err := os.ReadFile(filepath.Join("tree", path))
			if err != nil {
				return err
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", path, diff)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestOpenDigest: the image of this program, one that another version left in
// the cache, and one that is gone.
func TestOpenDigest(t *testing.T) {
	dir := t.TempDir()
	img, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	same, err := OpenDigest(dir, img.Digest, img.Size)
	if err != nil || same.Digest != img.Digest {
		t.Fatalf("%+v, %v", same, err)
	}
	same.Close()
	old := bytes.Repeat([]byte("old!"), 1024)
	sum := sha256.Sum256(old)
	f, err := cachefile.Get(dir, imageContent, sum, int64(len(old)), func(w *os.File) error {
		_, err := w.Write(old)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	other, err := OpenDigest(dir, fmt.Sprintf("sha256:%x", sum), int64(len(old)))
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	if _, err := OpenDigest(dir, "sha256:"+strings.Repeat("0", 64), 4096); !errors.Is(err, ErrMissing) {
		t.Errorf("an image that is gone: %v", err)
	}
	for _, bad := range []string{"", "sha256:12", "sha256:" + strings.Repeat("x", 64), "sha256:" + strings.Repeat("0", 66)} {
		if _, err := OpenDigest(dir, bad, 4096); err == nil || errors.Is(err, ErrMissing) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
