package main

import (
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestRev(t *testing.T) {
	tooltest.Run(t, run, []tooltest.Case{
		{In: "abc\n\näx", Want: "cba\n\nxä\n"},
		{Args: "none", Status: 1, Says: "no such file"},
	})
}
