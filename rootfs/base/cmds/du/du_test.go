package main

import (
	"os"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestDu(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("d/e/f", []byte(strings.Repeat("x", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link("d/e/f", "d/e/g"); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-b d/e/f", Want: "5000\td/e/f\n"},
		{Args: "-bh d/e/f", Want: "4.9K\td/e/f\n"},
		{Args: "-bc d/e/f d/e/g", Want: "5000\td/e/f\n5000\ttotal\n"},
		{Args: "-s none", Status: 1, Says: "no such file"},
		{Args: "-d x", Status: 1, Says: "bad depth"},
	})
	names := func(args ...string) string {
		out, _, _ := tooltest.One(run, "", args...)
		var list []string
		for line := range strings.Lines(out) {
			list = append(list, strings.Fields(line)[1])
		}
		return strings.Join(list, " ")
	}
	for args, want := range map[string]string{"": "./d/e ./d .", "-s d": "d", "-a d": "d/e/f d/e d", "-d1 .": "./d .", "-h d/": "d/e d/"} {
		if got := names(strings.Fields(args)...); got != want {
			t.Errorf("%s: got %s, want %s", args, got, want)
		}
	}
}
