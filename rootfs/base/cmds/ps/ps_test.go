package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestParseStat(t *testing.T) {
	p, err := parseStat("42 (a b) c) S 1 42 42 34817 42 4194304 1 2 3 4 150 50 0 0 20 0 3 0 500 1048576 2 18446744073709551615 1")
	if err != nil {
		t.Fatal(err)
	}
	if p.pid != 42 || p.comm != "a b) c" || p.ppid != 1 || p.ticks != 200 || p.vsize != 1<<20 || p.stat() != "Ssl+" || p.terminal() != "pts/1" {
		t.Errorf("%+v", p)
	}
	for _, text := range []string{"", "1 (x", "x (y) S", "1 (x) S 1 2", strings.Repeat("1 (x) ", 30)} {
		if _, err := parseStat(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("42 (a) S 1 42 42 34817 42 4194304 1 2 3 4 150 50 0 0 20 0 3 0 500 1048576 2 9")
	f.Add("1 )(")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseStat(text); err == nil {
			p.stat()
			p.terminal()
		}
	})
}

func TestPs(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for args, head := range map[string]string{"": "PID TTY", "-ef": "UID PID PPID C STIME TTY TIME CMD", "aux": "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND", "ax": "PID TTY STAT TIME COMMAND"} {
		out, says, status := tooltest.One(run, "", strings.Fields(args)...)
		fields := strings.Join(strings.Fields(strings.SplitN(out, "\n", 2)[0]), " ")
		if status != 0 || !strings.HasPrefix(fields, head) || !strings.Contains(out, self) {
			t.Errorf("%s: %d %s\n%s", args, status, says, out)
		}
	}
	out, _, _ := tooltest.One(run, "", "-o", "pid=,ppid=", "-p", self)
	if want := self + " " + strconv.Itoa(os.Getppid()) + "\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if _, _, status := tooltest.One(run, "", "-p", "99999999"); status != 1 {
		t.Errorf("status %d for no process", status)
	}
	tooltest.Run(t, run, []tooltest.Case{{Args: "-o nonsense", Status: 1, Says: "unknown column"}})
	if got := clock(90061); got != "1-01:01:01" {
		t.Error(got)
	}
}
