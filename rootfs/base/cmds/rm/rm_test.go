package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestRm(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "d/e/f"} {
		if err := os.WriteFile(name, nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "none a", Status: 1, Says: "no such file"},
		{Args: "a", Status: 1, Says: "no such file"},
		{Args: "-f none b/x"},
		{Args: "-f"},
		{Args: "", Status: 2, Says: "no files"},
		{Args: "d", Status: 1, Says: "is a directory"},
		{Args: "-d d", Status: 1, Says: "not empty"},
		{Args: "-dv empty", Want: "removed 'empty'\n"},
		{Args: "-rf d/. ..", Status: 1, Says: "refusing"},
		{Args: "-rf //", Status: 1, Says: "refusing"},
		{Args: "-rf d none b"},
	})
	left, err := os.ReadDir(".")
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
