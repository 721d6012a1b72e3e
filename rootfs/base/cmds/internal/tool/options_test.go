package tool

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	s := &Syntax{Letters: "an:v", Long: "all=a number=n", Number: 'n'}
	for _, c := range []struct{ in, want string }{
		{"-av x -n 3 y", "[{97 } {118 } {110 3}] [x y]"},
		{"-n3 -5 -", "[{110 3} {110 5}] [-]"},
		{"--number=3 --all -- -a", "[{110 3} {97 }] [-a]"},
		{"--number 3", "[{110 3}] []"},
		{"-z", "unknown option -z"},
		{"-n", "option -n needs a value"},
		{"--all=3", "wrong use of option --all"},
		{"--none", "unknown option --none"},
	} {
		o, rest, err := s.parse(strings.Fields(c.in))
		got := fmt.Sprint(o, " ", rest)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.in, got, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{"3": 3, "2b": 1024, "1k": 1024, "1K": 1024, "1kB": 1000, "2M": 2 << 20, "1GiB": 1 << 30} {
		if got, err := Size(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "k", "3x", "1kk", "99999999999T"} {
		if got, err := Size(in); err == nil {
			t.Errorf("%s: %d", in, got)
		}
	}
}

func TestHuman(t *testing.T) {
	for in, want := range map[int64]string{5: "5", 1024: "1.0K", 1536: "1.5K", 20 << 20: "20M"} {
		if got := Human(in); got != want {
			t.Errorf("%d: got %s, want %s", in, got, want)
		}
	}
}
