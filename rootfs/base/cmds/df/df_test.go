package main

import (
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestOf(t *testing.T) {
	mounts := parse("root / ext4 rw 0 0\nt1 /tm tmpfs rw 0 0\nt2 " + t.TempDir()[:4] + " tmpfs rw 0 0\na /x\\040y none rw 0 0\nbad\n")
	if len(mounts) != 4 || mounts[3].dir != "/x y" {
		t.Errorf("%v", mounts)
	}
	if m, err := of(t.TempDir(), mounts); err != nil || m.source != "t2" {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := of("/", mounts); err != nil || m.source != "root" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestDf(t *testing.T) {
	for args, want := range map[string]string{"/": "1K-blocks", "-h /": "Size", "-hT .": "Type", "-i /": "IUse%", "-m /": "1M-blocks"} {
		out, says, status := tooltest.One(run, "", strings.Fields(args)...)
		if status != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, want) {
			t.Errorf("%s: %d %s\n%s", args, status, says, out)
		}
	}
	tooltest.Run(t, run, []tooltest.Case{{Args: "/none", Status: 1, Says: "no such file"}})
	for _, c := range []struct {
		used, usable int64
		want         string
	}{{0, 0, "-"}, {0, 5, "0%"}, {1, 999, "1%"}, {5, 5, "50%"}, {5, 0, "100%"}} {
		if got := percent(c.used, c.usable); got != c.want {
			t.Errorf("%d %d: %s", c.used, c.usable, got)
		}
	}
}
