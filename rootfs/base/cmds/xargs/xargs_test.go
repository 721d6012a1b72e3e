package main

import (
	"bufio"
	"io"
	"os"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestXargs(t *testing.T) {
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "", In: "a b\nc\n", Want: "a b c\n"},
		{Args: "echo x", In: "", Want: "x\n"},
		{Args: "-r echo x", In: " \n"},
		{Args: "-n 2 echo", In: "a b c", Want: "a b\nc\n"},
		{Args: "-n1 echo -n", In: "a b", Want: "ab"},
		{Args: "-L 1 echo", In: "a b\n\nc\n", Want: "a b\nc\n"},
		{Args: "-I {} echo {}-{} x", In: " a b\nc\n", Want: "a b-a b x\nc-c x\n"},
		{Args: "-0 -n1 echo", In: "a b\x00c\nd\x00e", Want: "a b\nc\nd\ne\n"},
		{Args: "-d , -n1 echo", In: "a,b", Want: "a\nb\n"},
		{Args: "-n1 echo", In: `"a b" 'c"d' e\ f`, Want: "a b\nc\"d\ne f\n"},
		{Args: "-E b echo", In: "a b c", Want: "a\n"},
		{Args: "-s 8 echo", In: "a b c", Want: "a\nb\nc\n"},
		{Args: "echo", In: `"a`, Status: 1, Says: "unmatched"},
		{Args: "-n 0 echo", Status: 1, Says: "positive"},
		{Args: "none-such", In: "a", Status: 127, Says: "not found"},
		{Args: "/", In: "a", Status: 126, Says: "is a directory"},
		{Args: "|sh|-c|exit 255", In: "a b", Status: 126, Says: "xargs"},
		{Args: "-n1|sh|-c|echo $0; exit 255", In: "a b", Want: "a\n", Status: 124, Says: "aborting"},
		{Args: "sh|-c|kill -9 $$", In: "a", Status: 125, Says: "signal 9"},
	})
	for _, args := range [][]string{{"false"}, {"-n1", "sh", "-c", `test "$0" = b`}} {
		if _, _, status := tooltest.One(run, "a b", args...); status != 123 {
			t.Errorf("%q: status %d, want 123", args, status)
		}
	}
	// Commands at the same time write to a file, never to a writer in memory.
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/items", []byte("a b c d"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &tool.Env{In: os.Stdin, Out: bufio.NewWriter(io.Discard), Err: io.Discard}
	run(e, []string{"-a", dir + "/items", "-P", "3", "-I{}", "touch", dir + "/{}"})
	if _, err := os.Stat(dir + "/a b c d"); err != nil || e.Status != 0 {
		t.Errorf("status %d, %v", e.Status, err)
	}
	run(e, []string{"-a", dir + "/items", "-P", "3", "-n1", "false"})
	if e.Status != 123 {
		t.Errorf("status %d", e.Status)
	}
	if out, says, status := tooltest.One(run, "a b", "-t", "echo"); out != "a b\n" || says != "echo a b\n" || status != 0 {
		t.Errorf("-t: %q, %q, %d", out, says, status)
	}
}
