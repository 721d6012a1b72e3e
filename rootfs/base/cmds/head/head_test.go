package main

import (
	"os"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestHead(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("f", []byte("1\n2\n3"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 5000) + "\n"
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-n 2 f", Want: "1\n2\n"},
		{Args: "-2 f", Want: "1\n2\n"},
		{Args: "-n2", In: "a\nb\nc\n", Want: "a\nb\n"},
		{Args: "-n1", In: long + "b\n", Want: long},
		{Args: "-n 0 f"},
		{Args: "-c 3 f", Want: "1\n2"},
		{Args: "-n -1 f", Want: "1\n2\n"},
		{Args: "-c -2 f", Want: "1\n2"},
		{Args: "-n -9 f"},
		{Args: "f", Want: "1\n2\n3"},
		{Args: "-n1 f -", In: "x\n", Want: "==> f <==\n1\n\n==> standard input <==\nx\n"},
		{Args: "-qn1 f f", Want: "1\n1\n"},
		{Args: "none f", Want: "==> f <==\n1\n2\n3", Status: 1, Says: "no such file"},
		{Args: "-n x f", Status: 1, Says: "not a size"},
		{Args: ".", Status: 1, Says: "is a directory"},
	})
}
