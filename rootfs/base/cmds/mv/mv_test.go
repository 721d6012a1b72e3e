package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/filecopy"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestMv(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"d", "e", "full/x"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c", "e/in"} {
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-f a b"},
		{Args: "-n c b"},
		{Args: "b c d"},
		{Args: "-v e d", Want: "renamed 'e' -> 'd/e'\n"},
		{Args: "none d", Status: 1, Says: "no such file"},
		{Args: "d d/e", Status: 1, Says: "invalid argument"},
		{Args: "-T d full", Status: 1, Says: "exist"},
		{Args: "d/b d/b", Status: 1, Says: "same file"},
	})
	for name, want := range map[string]string{"d/b": "a", "d/c": "c", "d/e/in": "e/in"} {
		if b, err := os.ReadFile(name); string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestAcross(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("d/e/f", []byte("x"), 0o640); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat("d")
	if err != nil {
		t.Fatal(err)
	}
	if err := across(&tool.Env{}, filecopy.Pair{From: "d", To: "to"}, info); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("to/e/f"); string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Lstat("d"); err == nil {
		t.Error("the source is still there")
	}
}
