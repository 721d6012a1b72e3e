package main

import (
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestFold(t *testing.T) {
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-w 3", In: "abcdefg\n\nab", Want: "abc\ndef\ng\n\nab\n"},
		{Args: "-3", In: "abcd\n", Want: "abc\nd\n"},
		{Args: "-s -w 6", In: "ab cd ef\n", Want: "ab cd \nef\n"},
		{Args: "-w 2", In: "äöü\n", Want: "äö\nü\n"},
		{Args: "-b -w 2", In: "äöü\n", Want: "ä\nö\nü\n"},
		{Args: "-w 9", In: "a\tbcd\n", Want: "a\tb\ncd\n"},
		{Args: "-w 0", Status: 1, Says: "bad width"},
	})
}
