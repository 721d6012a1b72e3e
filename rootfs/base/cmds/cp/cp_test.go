package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestCp(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "f", "one", 0o750)
	write(t, "d/a", "a", 0o644)
	write(t, "d/e/b", "b", 0o600)
	write(t, "old", "old", 0o600)
	for _, l := range [][2]string{{"a", "d/link"}, {"none", "d/dangling"}, {"d", "dlink"}} {
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link("d/a", "d/hard"); err != nil {
		t.Fatal(err)
	}
	past := time.Unix(1000, 0)
	for _, name := range []string{"d/a", "d/e", "old"} {
		if err := os.Chtimes(name, past, past); err != nil {
			t.Fatal(err)
		}
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "f g"},
		{Args: "f g"},
		{Args: "-n old g"},
		{Args: "-u old g"},
		{Args: "f d", Status: 0},
		{Args: "d x", Status: 1, Says: "without -r"},
		{Args: "-r d r"},
		{Args: "-R d r"}, // now into it
		{Args: "-a d arch"},
		{Args: "-rT d arch"},
		{Args: "-r dlink copy"}, // a link
		{Args: "f f", Status: 1, Says: "same file"},
		{Args: "-r d d/sub", Status: 1, Says: "into itself"},
		{Args: "f none/x", Status: 1, Says: "no such file"},
		{Args: "none f", Status: 1, Says: "no such file"},
		{Args: "f g old", Status: 1, Says: "not a folder"},
		{Args: "-r d f", Status: 1, Says: "not a folder"},
		{Args: "-t r f old"},
		{Args: "-v f h", Want: "'f' -> 'h'\n"},
		{Args: "-L d/link followed"},
		{Args: "-P d/link kept"},
		{Args: "-l f linked"},
		{Args: "f", Status: 1, Says: "target"},
	})
	for name, want := range map[string]string{
		"g": "one", "d/f": "one", "r/a": "a", "r/e/b": "b", "r/d/e/b": "b", "arch/e/b": "b", "r/old": "old", "followed": "a",
	} {
		if b, err := os.ReadFile(name); string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, want := range map[string]string{"r/link": "a", "r/dangling": "none", "arch/link": "a", "copy": "d", "kept": "a"} {
		if target, err := os.Readlink(name); target != want {
			t.Errorf("%s: %q, %v", name, target, err)
		}
	}
	info, err := os.Stat("arch/e")
	if err != nil || !info.ModTime().Equal(past) {
		t.Errorf("%v, %v", info, err)
	}
	a, _ := os.Stat("arch/a")
	b, _ := os.Stat("arch/hard")
	if !os.SameFile(a, b) {
		t.Error("hard links were parted")
	}
	if info, err := os.Stat("h"); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", info, err)
	}
}
