package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestSurplus(t *testing.T) {
	now := time.Now()
	file := func(name string, age time.Duration, size int64) usedFile {
		return usedFile{path: name, size: size, at: now.Add(-age)}
	}
	files := []usedFile{file("old", 5*time.Hour, 1), file("new", time.Minute, 10), file("middle", time.Hour, 100)}
	for _, tt := range []struct {
		count int
		size  int64
		want  string
	}{
		{3, 1000, ""}, {2, 1000, "old"}, {1, 1000, "middle old"}, {0, 1000, "new middle old"},
		{3, 111, ""}, {3, 110, "old"}, {3, 109, "middle old"}, {3, 9, "new middle old"},
	} {
		got := ""
		for i, f := range surplus(files, tt.count, tt.size) {
			if i > 0 {
				got += " "
			}
			got += f.path
		}
		if got != tt.want {
			t.Errorf("%d files of %d bytes: %q go, want %q", tt.count, tt.size, got, tt.want)
		}
	}
}

func TestPruneTemplates(t *testing.T) {
	dir := t.TempDir()
	for i := range templatesKept + 3 {
		path := filepath.Join(dir, strconv.Itoa(100+i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now().Add(time.Duration(i)*time.Minute), templateSeal); err != nil {
			t.Fatal(err)
		}
	}
	last := strconv.Itoa(100 + templatesKept + 2)
	for _, name := range []string{templateLock, templateTemp + "x", "5" + templateFailed, "103" + templateHot, "99" + templateHot, last + templateHot} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pruneTemplates(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := templatesKept - 1 + 4; len(entries) != want {
		t.Errorf("%d files are left, want %d", len(entries), want)
	}
	for _, name := range []string{"103", "103" + templateHot, "99" + templateHot} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	for _, name := range []string{last, last + templateHot} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}
