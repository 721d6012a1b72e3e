package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestInstall(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("f", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "f g"},
		{Args: "-m 644 f g"},
		{Args: "-d a/b c"},
		{Args: "-m u=rw -t c f g"},
		{Args: "-D f n/e/w"},
		{Args: "-v f c/h", Want: "'f' -> 'c/h'\n"},
		{Args: "f none/x", Status: 1, Says: "no such file"},
		{Args: "none x", Status: 1, Says: "no such file"},
		{Args: "f f", Status: 1, Says: "same file"},
		{Args: "-o no-such-user f x", Status: 1, Says: "no user"},
		{Args: "f", Status: 1, Says: "target"},
	})
	for name, want := range map[string]os.FileMode{"g": 0o644, "a/b": 0o755, "c/f": 0o600, "n/e/w": 0o755, "c/h": 0o755} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
