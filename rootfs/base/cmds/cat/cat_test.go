package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestCat(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("f", []byte("1\n\n\n2"), 0o600); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "f - f", In: "x", Want: "1\n\n\n2x1\n\n\n2"},
		{Args: "", In: "x\n", Want: "x\n"},
		{Args: "-n f f", Want: "     1\t1\n     2\t\n     3\t\n     4\t21\n     5\t\n     6\t\n     7\t2"},
		{Args: "-bs f", Want: "     1\t1\n\n     2\t2"},
		{Args: "-A", In: "a\t\x01\x7f\xe1\n", Want: "a^I^A^?M-a$\n"},
		{Args: "-e", In: "a\tb\n", Want: "a\tb$\n"},
		{Args: "none f", Want: "1\n\n\n2", Status: 1, Says: "no such file"},
		{Args: "-z", Status: 2, Says: "usage"},
	})
}
