package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestPaste(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"a": "1\n2\n3\n", "b": "x\ny\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "a b", Want: "1\tx\n2\ty\n3\t\n"},
		{Args: "-d,: a b a", Want: "1,x:1\n2,y:2\n3,:3\n"},
		{Args: "-sd, a b", Want: "1,2,3\nx,y\n"},
		{Args: "-s -d \\n a", Want: "1\n2\n3\n"},
		{Args: "-d\\0 a b", Want: "1x\n2y\n3\n"},
		{Args: "- -", In: "1\n2\n3\n", Want: "1\t2\n3\t\n"},
		{Args: "a none", Status: 1, Says: "no such file"},
	})
}
