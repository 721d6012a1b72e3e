package main

import (
	"os"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestWc(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("f", []byte("one two\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Characters of three bytes cross the buffer's end.
	euros := strings.Repeat("€", 50000)
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "f", Want: " 2  3 14 f\n"},
		{Args: "-l f", Want: "2 f\n"},
		{Args: "-l", In: "a\nb", Want: "1\n"},
		{Args: "-c", In: "a\nb", Want: "3\n"},
		{Args: "-m", In: "äb\n", Want: "3\n"},
		{Args: "-m", In: euros, Want: "50000\n"},
		{Args: "-c", In: euros, Want: "150000\n"},
		{Args: "-w", In: euros, Want: "1\n"},
		{Args: "-L", In: "a\tb\nc", Want: "9\n"},
		{Args: "", In: "a b\n", Want: "      1       2       4\n"},
		{Args: "-lw f f", Want: " 2  3 f\n 2  3 f\n 4  6 total\n"},
		{Args: "none f", Want: " 2  3 14 f\n 2  3 14 total\n", Status: 1, Says: "no such file"},
	})
}
