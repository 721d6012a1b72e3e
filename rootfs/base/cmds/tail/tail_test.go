package main

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestTail(t *testing.T) {
	t.Chdir(t.TempDir())
	line := strings.Repeat("x", 99) + "\n"
	for name, text := range map[string]string{"f": "1\n2\n3", "g": "a\n", "empty": "", "big": strings.Repeat(line, 5000) + "end\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-n 2 f", Want: "2\n3"},
		{Args: "-1 f", Want: "3"},
		{Args: "-n +2 f", Want: "2\n3"},
		{Args: "+3 f", Want: "3"},
		{Args: "-n 0 f"},
		{Args: "f", Want: "1\n2\n3"},
		{Args: "empty"},
		{Args: "-c 3 f", Want: "2\n3"},
		{Args: "-c +3 f", Want: "2\n3"},
		{Args: "-n 2", In: "1\n2\n3\n", Want: "2\n3\n"},
		{Args: "-n 2 big", Want: line + "end\n"},
		{Args: "-n 2", In: strings.Repeat(line, 20000) + "end\n", Want: line + "end\n"},
		{Args: "-n 1 f g", Want: "==> f <==\n3\n==> g <==\na\n"},
		{Args: "-qn1 g g", Want: "a\na\n"},
		{Args: "none g", Want: "==> g <==\na\n", Status: 1, Says: "no such file"},
		{Args: "-n x g", Status: 1, Says: "not a size"},
		{Args: "-c +1 f", Want: "1\n2\n3"},
	})
	if out, _, _ := tooltest.One(run, "", "-n", "3000", "big"); len(out) != 2999*len(line)+4 {
		t.Errorf("%d bytes", len(out))
	}
}

func TestMore(t *testing.T) {
	name := t.TempDir() + "/log"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, says strings.Builder
	x := &tailer{e: &tool.Env{Out: bufio.NewWriter(&out), Err: &says}}
	f := &follower{name: name}
	for _, step := range []struct{ text, want string }{
		{"one\n", "one\n"}, {"one\ntwo\n", "two\n"}, {"one\ntwo\n", ""}, {"1\n", "1\n"},
	} {
		write(step.text)
		out.Reset()
		if err := x.more(f, true); err != nil {
			t.Fatal(err)
		}
		x.e.Out.Flush()
		if out.String() != step.want {
			t.Errorf("got %q, want %q", out.String(), step.want)
		}
	}
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	write("new\n")
	out.Reset()
	if err := x.more(f, true); err != nil {
		t.Fatal(err)
	}
	if x.e.Out.Flush(); out.String() != "new\n" || !strings.Contains(says.String(), "truncated") {
		t.Errorf("%q, %q", out.String(), says.String())
	}
	f.file.Close()
}
