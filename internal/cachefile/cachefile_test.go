package cachefile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var content = bytes.Repeat([]byte("hutch "), 10000)

func filler(b []byte, calls *int) func(*os.File) error {
	return func(w *os.File) error {
		*calls++
		_, err := w.Write(b)
		return err
	}
}

func mustRead(t *testing.T, f *os.File) {
	t.Helper()
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(b, content) {
		t.Fatalf("content: %d bytes, %v", len(b), err)
	}
}

func TestGet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "cache")
	digest, size := sha256.Sum256(content), int64(len(content))
	path := Path(dir, "thing", digest)
	damage := map[string]func() error{
		"missing":   func() error { return os.Remove(path) },
		"truncated": func() error { return os.Truncate(path, size-1) },
		"empty":     func() error { return os.Truncate(path, 0) },
		"grown":     func() error { return os.Truncate(path, size+1) },
		"a byte changed": func() error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte{'X'}, size/2)
			return err
		},
		"touched": func() error { return os.Chtimes(path, time.Time{}, time.Now()) },
		"replaced by an older file": func() error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, bytes.ToUpper(content), 0o444)
		},
	}
	calls := 0
	get := func() {
		t.Helper()
		f, err := Get(dir, "thing", digest, size, filler(content, &calls))
		if err != nil {
			t.Fatal(err)
		}
		mustRead(t, f)
	}
	get()
	get()
	if calls != 1 {
		t.Fatalf("filled %d times, want once", calls)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o444 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	for name, do := range damage {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := calls
		get()
		if calls != before+1 {
			t.Errorf("%s: not filled again", name)
		}
		get()
		if calls != before+1 {
			t.Errorf("%s: filled twice", name)
		}
	}
	if names := temps(t, dir); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

func temps(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestGetErrors(t *testing.T) {
	digest, size := sha256.Sum256(content), int64(len(content))
	boom := errors.New("boom")
	wrong := bytes.ToUpper(content)
	calls := 0
	for name, tc := range map[string]struct {
		file string
		fill func(*os.File) error
		want error
	}{
		"fill fails":    {"a", func(*os.File) error { return boom }, boom},
		"too short":     {"a", filler(content[1:], &calls), ErrMismatch},
		"wrong content": {"a", filler(wrong, &calls), ErrMismatch},
		"path in name":  {"../a", filler(content, &calls), fs.ErrInvalid},
		"no name":       {"", filler(content, &calls), fs.ErrInvalid},
		"hidden name":   {".fill-a", filler(content, &calls), fs.ErrInvalid},
	} {
		dir := t.TempDir()
		_, err := Get(dir, tc.file, digest, size, tc.fill)
		var e *Error
		if !errors.Is(err, tc.want) || !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
		}
		if names := temps(t, dir); len(names) != 0 {
			t.Errorf("%s: left behind: %v", name, names)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Get(file, "a", digest, size, filler(content, &calls)); err == nil {
		t.Error("a file as directory: no error")
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, fmt.Sprintf("%s%d-1", tempPrefix, time.Now().Add(-2*abandoned).Unix()))
	young := filepath.Join(dir, fmt.Sprintf("%s%d-1", tempPrefix, time.Now().Unix()))
	for _, p := range []string{old, young} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	f, err := Get(dir, "a", sha256.Sum256(content), int64(len(content)), filler(content, &calls))
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, f)
	if got := temps(t, dir); len(got) != 1 || got[0] != young {
		t.Errorf("after the sweep: %v", got)
	}
}

func TestConcurrentGoroutines(t *testing.T) {
	race(t, t.TempDir(), 20)
}

// race lets n goroutines open the file while the file is damaged again and again.
func race(t *testing.T, dir string, n int) {
	digest, size := sha256.Sum256(content), int64(len(content))
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range 5 {
				calls := 0
				f, err := Get(dir, "thing", digest, size, filler(content, &calls))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(f)
				f.Close()
				if err != nil || !bytes.Equal(b, content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				if i%4 == 0 {
					os.Remove(Path(dir, "thing", digest))
				}
			}
		})
	}
	wg.Wait()
}

// The test binary runs itself: several processes use one directory.
func TestConcurrentProcesses(t *testing.T) {
	const variable = "CACHEFILE_TEST_DIR"
	if dir := os.Getenv(variable); dir != "" {
		race(t, dir, 4)
		return
	}
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestConcurrentProcesses$")
			cmd.Env = append(os.Environ(), variable+"="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	if names := temps(t, dir); len(names) != 0 {
		t.Errorf("left behind: %s", strings.Join(names, " "))
	}
}
