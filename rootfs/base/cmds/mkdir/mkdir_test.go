package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestMkdir(t *testing.T) {
	t.Chdir(t.TempDir())
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "a"},
		{Args: "a", Status: 1, Says: "file exists"},
		{Args: "-m 700 a b", Status: 1, Says: "file exists"},
		{Args: "x/y", Status: 1, Says: "no such file"},
		{Args: "-p a x/y/z ./x/y/"},
		{Args: "-pv x/q", Want: "created directory 'x/q'\n"},
		{Args: "-m u=rwx,go= c"},
		{Args: "-m z d", Status: 1, Says: "mode"},
		{Args: "", Status: 2, Says: "usage"},
		{Args: "-p x/y/z/", Status: 0},
	})
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-p file", Status: 1, Says: "file exists"},
		{Args: "-p file/x", Status: 1, Says: "not a directory"},
	})
	for dir, want := range map[string]os.FileMode{"b": 0o700, "c": 0o700} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
}
