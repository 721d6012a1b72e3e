package main

import (
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestTr(t *testing.T) {
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "a-z A-Z", In: "abc-Z", Want: "ABC-Z"},
		{Args: "[:lower:] [:upper:]", In: "abcé", Want: "ABCé"},
		{Args: "abc x", In: "aabbcd", Want: "xxxxxd"},
		{Args: "-t abc x", In: "abc", Want: "xbc"},
		{Args: "-d 0-9", In: "a1b22c", Want: "abc"},
		{Args: "-cd 0-9\\n", In: "a1b22c\n", Want: "122\n"},
		{Args: "-s a", In: "aabbaa", Want: "abba"},
		{Args: "-s [:space:]", In: "a  b\t\tc", Want: "a b\tc"},
		{Args: "-s ab x", In: "aabbc", Want: "xc"},
		{Args: "-cs [:alnum:] \\n", In: "a, b; c\n", Want: "a\nb\nc\n"},
		{Args: "-ds a b", In: "aabbc", Want: "bc"},
		{Args: "-c a [x*]", In: "abc", Want: "axx"},
		{Args: "a-d [x*2]yz", In: "abcd", Want: "xxyz"},
		{Args: "\\n |", In: "", Status: 2, Says: "set"},
		{Args: "\\012 ,", In: "a\nb", Want: "a,b"},
		{Args: "[a] (b)", In: "[a]", Want: "(b)"},
		{Args: "a- xy", In: "a-", Want: "xy"},
		{Args: "-d -", In: "a-b", Want: "ab"},
		{Args: "z-a x", Status: 2, Says: "backwards"},
		{Args: "[:none:] x", Status: 2, Says: "unknown class"},
		{Args: "a", Status: 2, Says: "two sets"},
	})
}
