package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestLn(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("f", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-s none s"},
		{Args: "-s none s", Status: 1, Says: "file exists"},
		{Args: "-sf f s"},
		{Args: "f hard"},
		{Args: "-f f hard"},
		{Args: "f f", Status: 1, Says: "file exists"},
		{Args: "-s ../f d"},
		{Args: "-s d dir"},
		{Args: "-sfn f dir"},
		{Args: "-sr f d/e/rel"},
		{Args: "-s /nowhere/base"},
		{Args: "-sv x v", Want: "'v' -> 'x'\n"},
		{Args: "none x", Status: 1, Says: "no such file"},
		{Args: "-sf x d/e/", Status: 0},
		{Args: "-sfT x d", Status: 1, Says: "file exists"},
	})
	for name, want := range map[string]string{"s": "f", "d/f": "../f", "dir": "f", "d/e/rel": "../../f", "base": "/nowhere/base", "d/e/x": "x"} {
		if target, err := os.Readlink(name); target != want {
			t.Errorf("%s: %q, %v", name, target, err)
		}
	}
	if b, err := os.ReadFile("hard"); string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}
