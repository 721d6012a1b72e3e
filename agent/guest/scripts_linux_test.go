package guest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/agent/proto"
)

// TestScriptsComeFirst: a script is found before a command of the same name,
// whatever the PATH of the command's environment.
func TestScriptsComeFirst(t *testing.T) {
	dir := t.TempDir()
	script := proto.Script{Name: "uname", Content: "#!/bin/sh\necho \"mine $PATH\"\n"}
	if err := writeScripts(dir, []proto.Script{script}); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Defaults{PathFirst: dir})
	for _, env := range [][]string{nil, {"PATH=/usr/bin:/bin"}, {"PATH="}} {
		c, err := s.prepare(&proto.Exec{Argv: []string{"uname"}, Env: env})
		if err != nil {
			t.Fatal(err)
		}
		exe, err := c.locate()
		if err != nil || exe != dir+"/uname" {
			t.Errorf("%v: found %s, %v", env, exe, err)
		}
		if !strings.HasPrefix(c.path, dir) || strings.HasSuffix(c.path, ":") {
			t.Errorf("%v: PATH is %s", env, c.path)
		}
	}
	if st, err := os.Stat(dir + "/uname"); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if err := writeScripts(dir, []proto.Script{{Name: name}}); !errors.Is(err, errScriptName) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
