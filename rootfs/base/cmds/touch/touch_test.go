package main

import (
	"os"
	"testing"
	"time"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestTouch(t *testing.T) {
	t.Chdir(t.TempDir())
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "now"},
		{Args: "-c none"},
		{Args: "-d|2020-01-02 03:04:05|iso"},
		{Args: "-t 202001020304.05 stamp"},
		{Args: "-r iso ref"},
		{Args: "-d @5 -m mod"},
		{Args: "-d never x", Status: 1, Says: "never"},
		{Args: "-t 12 x", Status: 1, Says: "parsing"},
		{Args: "-r none x", Status: 1, Says: "no such file"},
		{Args: "none/x now", Status: 1, Says: "none/x: no such file"},
	})
	want := time.Date(2020, 1, 2, 3, 4, 5, 0, time.Local)
	for _, name := range []string{"iso", "stamp", "ref"} {
		if info, err := os.Stat(name); err != nil || !info.ModTime().Equal(want) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if info, err := os.Stat("mod"); err != nil || info.ModTime().Unix() != 5 {
		t.Errorf("mod: %v, %v", info, err)
	}
	for _, name := range []string{"none", "x"} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}
