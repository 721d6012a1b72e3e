package sandbox

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDefaultCommand goes through Docker's table of how ENTRYPOINT and CMD
// interact, and what overriding one does to the other.
func TestDefaultCommand(t *testing.T) {
	argv := func(s ...string) *[]string { return &s }
	shellEntry := []string{"/bin/sh", "-c", "exec_entry p1_entry"}
	shellCmd := []string{"/bin/sh", "-c", "exec_cmd p1_cmd"}
	execEntry := []string{"exec_entry", "p1_entry"}
	execCmd := []string{"exec_cmd", "p1_cmd"}
	for _, tt := range []struct {
		name               string
		entry, cmd         []string // the image's
		withEntry, withCmd *[]string
		args, want         []string
	}{
		{"neither", nil, nil, nil, nil, nil, nil},
		{"cmd, exec form", nil, execCmd, nil, nil, nil, execCmd},
		{"cmd, shell form", nil, shellCmd, nil, nil, nil, shellCmd},
		{"entrypoint, exec form", execEntry, nil, nil, nil, nil, execEntry},
		{"entrypoint, shell form", shellEntry, nil, nil, nil, nil, shellEntry},
		{"both, exec form", execEntry, execCmd, nil, nil, nil, []string{"exec_entry", "p1_entry", "exec_cmd", "p1_cmd"}},
		{"exec entrypoint, shell cmd", execEntry, shellCmd, nil, nil, nil, []string{"exec_entry", "p1_entry", "/bin/sh", "-c", "exec_cmd p1_cmd"}},
		// The shell ignores what follows its script but for $0 and $1.
		{"shell entrypoint, exec cmd", shellEntry, execCmd, nil, nil, nil, append(shellEntry[:3:3], execCmd...)},
		{"cmd replaced", execEntry, execCmd, nil, argv("new"), nil, []string{"exec_entry", "p1_entry", "new"}},
		{"cmd emptied", execEntry, execCmd, nil, argv(), nil, execEntry},
		{"entrypoint replaced drops the image's cmd", execEntry, execCmd, argv("new", "x"), nil, nil, []string{"new", "x"}},
		{"both replaced", execEntry, execCmd, argv("new"), argv("c"), nil, []string{"new", "c"}},
		{"entrypoint emptied drops the image's cmd", execEntry, execCmd, argv(), nil, nil, nil},
		{"entrypoint emptied, cmd given", execEntry, execCmd, argv(), argv("c"), nil, []string{"c"}},
		{"words replace the cmd", execEntry, execCmd, nil, nil, []string{"a", "b"}, []string{"exec_entry", "p1_entry", "a", "b"}},
		{"words replace a given cmd", execEntry, execCmd, nil, argv("c"), []string{"a"}, []string{"exec_entry", "p1_entry", "a"}},
		{"words with an emptied entrypoint", execEntry, execCmd, argv(), nil, []string{"a"}, []string{"a"}},
		{"words, no entrypoint", nil, execCmd, nil, nil, []string{"a"}, []string{"a"}},
	} {
		if diff := cmp.Diff(tt.want, defaultCommand(tt.entry, tt.cmd, tt.withEntry, tt.withCmd, tt.args)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestPinned(t *testing.T) {
	const digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for ref, want := range map[string]string{
		"debian":                          "debian@" + digest,
		"debian:12":                       "debian@" + digest,
		"localhost:5000/a/b":              "localhost:5000/a/b@" + digest,
		"localhost:5000/a/b:tag":          "localhost:5000/a/b@" + digest,
		"localhost:5000/a/b:tag@sha256:1": "localhost:5000/a/b@" + digest,
		digest:                            digest,
	} {
		if got := pinned(ref, digest); got != want {
			t.Errorf("%s: %s, want %s", ref, got, want)
		}
	}
}

func TestImageEnv(t *testing.T) {
	got := imageEnv([]string{"A=1", "A=2", "EMPTY=", "BARE", "=x", "HUTCH_X=1", "B=x=y"})
	if diff := cmp.Diff(map[string]string{"A": "2", "EMPTY": "", "BARE": "", "B": "x=y"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for dir, want := range map[string]string{"": "", "app": "/app", "/app/": "/app", "../x": "/x", "/": "/"} {
		if got := imageWorkdir(dir); got != want {
			t.Errorf("%q: %q", dir, got)
		}
	}
}

func TestIsPath(t *testing.T) {
	for ref, want := range map[string]bool{"/a": true, "./a": true, "../a": true, ".": true, "..": true, "a": false, "a/b": false, "a.raw": false, ".a": false} {
		if isPath(ref) != want {
			t.Errorf("%s: %v", ref, !want)
		}
	}
}
