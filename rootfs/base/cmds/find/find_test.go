package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("d/e/empty", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"d/a.go": 10, "d/B.GO": 0, "d/e/c.txt": 3000} {
		if err := os.WriteFile(name, []byte(strings.Repeat("x", n)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("e", "d/l"); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-49 * time.Hour)
	if err := os.Chtimes("d/a.go", past, past); err != nil {
		t.Fatal(err)
	}
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "d", Want: "d\nd/B.GO\nd/a.go\nd/e\nd/e/c.txt\nd/e/empty\nd/l\n"},
		{Args: "d -maxdepth 1 -type f", Want: "d/B.GO\nd/a.go\n"},
		{Args: "d -mindepth 2", Want: "d/e/c.txt\nd/e/empty\n"},
		{Args: "d/ -maxdepth 1 -name e", Want: "d/e\n"},
		{Args: "d -name *.go", Want: "d/a.go\n"},
		{Args: "d -iname *.go -print0", Want: "d/B.GO\x00d/a.go\x00"},
		{Args: "d -path *e/c*", Want: "d/e/c.txt\n"},
		{Args: "d -type l -o -type d -empty", Want: "d/e/empty\nd/l\n"},
		{Args: "d ! -type d ! ( -name a* -o -name B* )", Want: "d/e/c.txt\nd/l\n"},
		{Args: "d -type f -size +2k", Want: "d/e/c.txt\n"},
		{Args: "d -type f -size -11c", Want: "d/B.GO\nd/a.go\n"},
		{Args: "d -type f -size 0", Want: "d/B.GO\n"},
		{Args: "d -type f -newer d/a.go", Want: "d/B.GO\nd/e/c.txt\n"},
		{Args: "d -type f -mtime +1", Want: "d/a.go\n"},
		{Args: "d -type f -mtime 2", Want: "d/a.go\n"},
		{Args: "d -type f -mmin -5", Want: "d/B.GO\nd/e/c.txt\n"},
		{Args: "d -type f -perm 640 -perm -u=r -perm /444 -name c*", Want: "d/e/c.txt\n"},
		{Args: "d -name e -prune -o -type f -print", Want: "d/B.GO\nd/a.go\n"},
		{Args: "d -type f -exec echo got {} ;", Want: "got d/B.GO\ngot d/a.go\ngot d/e/c.txt\n"},
		{Args: "d -type f -exec echo {} +", Want: "d/B.GO d/a.go d/e/c.txt\n"},
		{Args: "d -type f -exec false ; -print"},
		{Args: "d -name e -printf %f:%h:%y:%d:%P\\n", Want: "e:d:d:1:e\n"},
		{Args: "-L d/l -name *.txt", Want: "d/l/c.txt\n"},
		{Args: "d -type f -quit"},
		{Args: "none d -name B*", Want: "d/B.GO\n", Status: 1, Says: "no such file"},
		{Args: "d -nonsense", Status: 1, Says: "-nonsense"},
		{Args: "d -name", Status: 1, Says: "needs a value"},
		{Args: "d ( -name x", Status: 1, Says: "bracket"},
		{Args: "d -exec echo", Status: 1, Says: "at its end"},
		{Args: "d -newer none", Status: 1, Says: "no such file"},
		{Args: "d -name a.go -exec no-such-command ;", Status: 1, Says: "not found"},
		{Args: "d -name *.GO -delete"},
		{Args: "d -depth -name ?", Want: "d/e\nd/l\nd\n"},
		{Args: "d/e -delete"},
		{Args: "d", Want: "d\nd/a.go\nd/l\n"},
	})
	if _, _, status := tooltest.One(run, "", "d", "-exec", "false", "{}", "+"); status != 1 {
		t.Errorf("status of a failed batch: %d", status)
	}
}
