package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets the test be the shell.
func TestMain(m *testing.M) {
	if os.Getenv("BE_SH") != "" {
		os.Exit(run(append([]string{"sh"}, os.Args[1:]...)))
	}
	os.Exit(m.Run())
}

func TestUlimit(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"ulimit -n 256; ulimit -n; ulimit -Hn", "256\n256\n"},
		{"ulimit -Sn 200; ulimit -n", "200\n"},
		{"ulimit -n 300; /bin/sh -c 'ulimit -n'", "300\n"},
		{"ulimit -Sc 0; ulimit -c; ulimit -Sc hard && ulimit -St 1000 && ulimit -t", "0\n1000\n"},
		{"ulimit -s 4096; ulimit -s", "4096\n"},
		{"ulimit -n $(ulimit -n) && echo same", "same\n"},
		{"ulimit -a | grep -c ':'", "15\n"},
		{"ulimit -z || echo no", "sh: ulimit: " + errLimitUsage.Error() + "\nno\n"},
		{"ulimit -n x || echo no", "sh: ulimit: x: not a limit\nno\n"},
		{"command ulimit -n 99; command ulimit -n", "99\n"},
		{"command -v ulimit kill umask", "ulimit\nkill\numask\n"},
		{"command -V umask; type ulimit", "umask is a shell builtin\nulimit is a shell builtin\n"},
		{"kill -l 15; kill -l TERM", "TERM\n15\n"},
	} {
		cmd := exec.Command(os.Args[0], "-c", c.script)
		cmd.Env = append(os.Environ(), "BE_SH=1")
		out, err := cmd.CombinedOutput()
		if got := string(out); got != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", c.script, err, got, c.want)
		}
	}
	// What is shown is what commands get, not what the runtime made of it.
	want, err := exec.Command("/bin/sh", "-c", "ulimit -n").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-c", "ulimit -n")
	cmd.Env = append(os.Environ(), "BE_SH=1")
	if got, err := cmd.Output(); err != nil || strings.TrimSpace(string(got)) != strings.TrimSpace(string(want)) {
		t.Errorf("open files: got %q, %v, want %q", got, err, want)
	}
}
