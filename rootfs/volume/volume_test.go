package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLife(t *testing.T) {
	s := NewStore(filepath.Join(t.TempDir(), "volumes"))
	if l, err := s.List(); err != nil || len(l) != 0 {
		t.Errorf("list of nothing: %v, %v", l, err)
	}
	if _, err := s.Get("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if err := s.Remove("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("remove of nothing: %v", err)
	}
	made, err := s.Create("data", Options{Quota: 1 << 20, Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Get("data")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("(-made +got):\n%s", diff)
	}
	if _, err := s.Create("data", Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("second create: %v", err)
	}
	if _, err := s.Create("a", Options{}); err != nil {
		t.Fatal(err)
	}
	if l, err := s.List(); err != nil || len(l) != 2 || l[0].Name != "a" {
		t.Errorf("list: %v, %v", l, err)
	}

	one, err := s.Use("data")
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Use("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []*Use{one, two} {
		if err := s.Remove("data"); !errors.Is(err, ErrInUse) {
			t.Errorf("remove of one in use: %v", err)
		}
		if err := errors.Join(u.Close(), u.Close()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Remove("data"); err != nil {
		t.Error(err)
	}
	if _, err := s.Use("data"); !errors.Is(err, ErrNotFound) {
		t.Errorf("use of one removed: %v", err)
	}
	if l, _ := os.ReadDir(s.dir); len(l) != 1 {
		t.Errorf("left in the store: %v", l)
	}
}

func TestBadNames(t *testing.T) {
	s := NewStore(t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a\x00b", ".hidden", "-x", strings.Repeat("n", 129), "ä"} {
		_, create := s.Create(name, Options{})
		_, get := s.Get(name)
		_, use := s.Use(name)
		for op, err := range map[string]error{"create": create, "get": get, "use": use, "remove": s.Remove(name)} {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s %q: %v", op, name, err)
			}
		}
	}
	if _, err := s.Create("x", Options{Quota: -1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("negative quota: %v", err)
	}
}

// Of many creates at once one wins; of creates and removes none breaks another.
func TestConcurrent(t *testing.T) {
	s := NewStore(t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 16 {
		wg.Go(func() {
			_, err := s.Create("v", Options{})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d creates won", won)
	}
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := s.Create("w", Options{}); err != nil && !errors.Is(err, ErrExists) {
					t.Error(err)
				}
				if u, err := s.Use("w"); err == nil {
					if _, err := os.Stat(u.Path); err != nil {
						t.Errorf("a volume in use has no files: %v", err)
					}
					u.Close()
				} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
				if err := s.Remove("w"); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInUse) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestFilesAndUsage(t *testing.T) {
	s := NewStore(t.TempDir())
	if _, err := s.Create("v", Options{}); err != nil {
		t.Fatal(err)
	}
	u, err := s.Use("v")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	root, err := u.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.WriteFile("file", make([]byte, 100<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := root.Link("file", "again"); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(u.Path, "leak")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"leak", "../volume.json", "/etc/passwd"} {
		if b, err := root.ReadFile(name); err == nil {
			t.Errorf("%s was read: %q", name, b)
		}
		if err := root.WriteFile(name, nil, 0o644); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	got, err := u.Usage()
	if err != nil || got.Files != 2 || got.Bytes < 100<<10 || got.Bytes > 200<<10 {
		t.Errorf("usage %+v, %v", got, err)
	}
}

// Records that are broken are told of and do not hide the others.
func TestBrokenRecords(t *testing.T) {
	s := NewStore(t.TempDir())
	for _, name := range []string{"good", "broken", "future", "huge"} {
		if _, err := s.Create(name, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"broken": "{", "future": `{"version": 99}`, "huge": strings.Repeat(" ", maxRecord+1)} {
		if err := os.WriteFile(filepath.Join(s.path(name), recordName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := s.List()
	if len(l) != 1 || l[0].Name != "good" {
		t.Errorf("list: %v", l)
	}
	for _, name := range []string{"broken", "future", "huge"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not told of: %v", name, err)
		}
		if err := s.Remove(name); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	// What a killed process left goes after a while.
	old := filepath.Join(s.dir, newPrefix+"x")
	os.Mkdir(old, 0o700)
	past := time.Now().Add(-2 * time.Hour)
	os.Chtimes(old, past, past)
	if _, err := s.Create("more", Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("a leftover stays")
	}
}
