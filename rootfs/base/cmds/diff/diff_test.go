package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestDiff(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"a": "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n", "b": "1\n2\nx\n4\n5\n6\n7\n8\n9\n10\n12\n13\n", "end": "1\n2", "end2": "1\n2\n",
		"bin": "a\x00b", "case": "A  b\n", "case2": "a b\n", "empty": "", "blank": "\nA  b\n",
		"d/same": "x\n", "e/same": "x\n", "d/f": "1\n", "e/f": "2\n", "d/only": "", "e/new": "n\n", "d/s/x": "1\n", "e/s/x": "1\n2\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	label := "-L x -L y "
	quiet := func(e *tool.Env, args []string) {
		run(e, args)
		if e.Status == 1 {
			e.Status = 0 // differences are not said on standard error
		} else if e.Status == 0 {
			e.Out.WriteString("(none)")
		}
	}
	tooltest.Run(t, quiet, []tooltest.Case{
		{Args: "a a", Want: "(none)"},
		{Args: "a b", Want: "3c3\n< 3\n---\n> x\n11d10\n< 11\n12a12\n> 13\n"},
		{Args: label + "-u a b", Want: "--- x\n+++ y\n@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+x\n 4\n 5\n 6\n@@ -8,5 +8,5 @@\n 8\n 9\n 10\n-11\n 12\n+13\n"},
		{Args: label + "-U1 a b", Want: "--- x\n+++ y\n@@ -2,3 +2,3 @@\n 2\n-3\n+x\n 4\n@@ -10,3 +10,3 @@\n 10\n-11\n 12\n+13\n"},
		{Args: label + "-u empty end2", Want: "--- x\n+++ y\n@@ -0,0 +1,2 @@\n+1\n+2\n"},
		{Args: "empty end2", Want: "0a1,2\n> 1\n> 2\n"},
		{Args: label + "-u end end2", Want: "--- x\n+++ y\n@@ -1,2 +1,2 @@\n 1\n-2\n\\ No newline at end of file\n+2\n"},
		{Args: "-q a b", Want: "Files a and b differ\n"},
		{Args: "-s a a", Want: "Files a and a are identical\n(none)"},
		{Args: "bin a", Want: "Binary files bin and a differ\n"},
		{Args: "-i -b case case2", Want: "(none)"},
		{Args: "-iw case case2", Want: "(none)"},
		{Args: "-B case blank", Want: "(none)"},
		{Args: "- case", In: "A  b\n", Want: "(none)"},
		{Args: "d/f e", Want: "1c1\n< 1\n---\n> 2\n"},
		{Args: "d e", Want: "diff d/f e/f\n1c1\n< 1\n---\n> 2\nOnly in e: new\nOnly in d: only\nCommon subdirectories: d/s and e/s\n"},
		{Args: "-rq d e", Want: "Files d/f and e/f differ\nOnly in e: new\nOnly in d: only\nFiles d/s/x and e/s/x differ\n"},
		{Args: "-rN d e", Want: "diff -r -N d/f e/f\n1c1\n< 1\n---\n> 2\ndiff -r -N d/new e/new\n0a1\n> n\ndiff -r -N d/s/x e/s/x\n1a2\n> 2\n"},
		{Args: "a none", Status: 2, Says: "no such file"},
		{Args: "a", Status: 2, Says: "usage"},
	})
	if _, _, status := tooltest.One(run, "", "a", "b"); status != 1 {
		t.Errorf("status %d", status)
	}
}
