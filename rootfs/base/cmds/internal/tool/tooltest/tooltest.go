// Package tooltest runs commands in tests.
package tooltest

import (
	"bufio"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

// Case is a command line with what should come of it.
type Case struct {
	Args   string // separated by spaces, or, when it has any, by |
	In     string
	Want   string // standard output
	Status int
	Says   string // part of standard error
}

// Run runs the cases, in order.
func Run(t *testing.T, run func(*tool.Env, []string), cases []Case) {
	t.Helper()
	for _, c := range cases {
		args := strings.Fields(c.Args)
		if strings.Contains(c.Args, "|") {
			args = strings.Split(c.Args, "|")
		}
		out, says, status := One(run, c.In, args...)
		if out != c.Want || status != c.Status || !strings.Contains(says, c.Says) || (status == 0) != (says == "") {
			t.Errorf("%q: status %d, want %d\n got %q\nwant %q\nsays %q", c.Args, status, c.Status, out, c.Want, says)
		}
	}
}

// One runs one command line.
func One(run func(*tool.Env, []string), in string, args ...string) (out, says string, status int) {
	var o, s strings.Builder
	e := &tool.Env{Name: "x", In: strings.NewReader(in), Out: bufio.NewWriter(&o), Err: &s}
	run(e, args)
	e.Out.Flush()
	return o.String(), s.String(), e.Status
}
