package main

import (
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestPrintenv(t *testing.T) {
	t.Setenv("A", "1")
	t.Setenv("B", "")
	for _, c := range []struct {
		args   []string
		want   string
		status int
	}{
		{[]string{"A", "B"}, "1\n\n", 0},
		{[]string{"-0", "A"}, "1\x00", 0},
		{[]string{"SURELY_UNSET", "A"}, "1\n", 1},
	} {
		if out, _, status := tooltest.One(run, "", c.args...); out != c.want || status != c.status {
			t.Errorf("%q: %q, %d", c.args, out, status)
		}
	}
}
