package patch

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzLower patches images of anybody.
func FuzzLower(f *testing.F) {
	dir := f.TempDir()
	out, err := os.Create(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	defer out.Close()
	err = Build(context.Background(), base(f), []Patch{
		{Kind: File, Path: "/etc/motd", Data: []byte("hello"), Replace: true},
		{Kind: Symlink, Path: "/lib", Target: "../etc/../loop", Replace: true},
		{Kind: Symlink, Path: "/loop", Target: "/loop/x", Replace: true},
		{Kind: Remove, Path: "/usr"},
	}, out)
	if err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(out.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	null, err := os.OpenFile(filepath.Join(dir, "out"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer null.Close()
	patches := []Patch{
		{Kind: File, Path: "/etc/a", Replace: true},
		{Kind: Append, Path: "/etc/motd", Data: []byte("x")},
		{Kind: Mkdir, Path: "/lib/a/b"},
		{Kind: Remove, Path: "/loop/x"},
		{Kind: Remove, Path: "/etc/hosts"},
		{Kind: File, Path: "/usr/x/y", Replace: true},
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4096 {
			b = bytes.Clone(b)
			b[1024+8] &^= 1 // no checksum
		}
		lower, err := Image(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for i := range patches {
			null.Truncate(0)
			Build(ctx, lower, patches[i:], null) // nothing to say about the result
		}
		if r, err := lower.Open("etc/motd"); err == nil {
			io.CopyN(io.Discard, r, 1000)
		}
	})
}
