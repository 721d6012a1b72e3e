package main

import (
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestChmod(t *testing.T) {
	t.Chdir(t.TempDir())
	check := func(what string, modes map[string]os.FileMode) {
		t.Helper()
		for name, want := range modes {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %s: %v, %v, want %v", what, name, info.Mode(), err, want)
			}
		}
	}
	if err := os.MkdirAll("d/e", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d/f", "d/e/f"} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("none", "d/dangling"); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "u+x,go-r f"},
		{Args: "-R go-rX,u=rwX d"},
		{Args: "0600 none f", Status: 1, Says: "no such file"},
		{Args: "-v -x f", Want: "mode of 'f' changed from 0600 to 0600\n"},
		{Args: "-c 640 f", Want: "mode of 'f' changed from 0600 to 0640\n"},
		{Args: "-c 640 f"},
		{Args: "-R 755 none", Status: 1, Says: "no such file"},
		{Args: "q+x f", Status: 1, Says: "bad mode"},
		{Args: "755", Status: 2, Says: "no files"},
	})
	check("after all", map[string]os.FileMode{"f": 0o640, "d": 0o700, "d/e": 0o700, "d/f": 0o600, "d/e/f": 0o600})
	tooltest.Run(t, run, []tooltest.Case{{Args: "--reference=f d/f"}, {Args: "-R 755 d"}})
	check("reference", map[string]os.FileMode{"d/f": 0o755, "d/e/f": 0o755})
}
