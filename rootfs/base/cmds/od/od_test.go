package main

import (
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestOd(t *testing.T) {
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "", In: "abc", Want: "0000000 061141 000143\n0000003\n"},
		{Args: "-An -tx1", In: "abc\n", Want: " 61 62 63 0a\n"},
		{Args: "-An -t x1z", In: "ab\n", Want: " 61 62 0a" + strings.Repeat(" ", 39) + "  >ab.<\n"},
		{Args: "-c", In: "a\n\x00\xff", Want: "0000000   a  \\n  \\0 377\n0000004\n"},
		{Args: "-An -ta", In: "a \n", Want: "   a  sp  nl\n"},
		{Args: "-An -td1", In: "\xff\x01", Want: "   -1    1\n"},
		{Args: "-An -tu4 -N4", In: "\x01\x00\x00\x00\x02", Want: "          1\n"},
		{Args: "-Ad -tx2 -j2 -N2", In: "abcdef", Want: "0000002 6463\n0000004\n"},
		{Args: "-Ax -b", In: "\x08", Want: "000000 010\n000001\n"},
		{Args: "-An -tx1c", In: "a\n", Want: "  61  0a\n   a  \\n\n"},
		{Args: "-tx1 -w2", In: "aaaaaab", Want: "0000000 61 61\n*\n0000006 62\n0000007\n"},
		{Args: "-v -An -tx1 -w2", In: "aaaa", Want: " 61 61\n 61 61\n"},
		{Args: "-j 9", In: "a", Status: 1, Says: "cannot skip"},
		{Args: "-t q", Status: 1, Says: "bad type"},
		{Args: "none", Want: "0000000\n", Status: 1, Says: "no such file"},
	})
}
