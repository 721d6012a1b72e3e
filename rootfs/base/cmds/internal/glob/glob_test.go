package glob

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"*.go", "a.go", true},
		{"*.go", "a.god", false},
		{"*a*b*", "xaxxbx", true},
		{"*", "", true},
		{"?", "", false},
		{"?", "é", true},
		{"a*/c", "a/b/c", true},
		{"[a-c]x", "bx", true},
		{"[!a-c]x", "bx", false},
		{"[]a]", "]", true},
		{"[a", "[a", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{"*ab", "aab", true},
		{"", "", true},
		{"", "a", false},
		{"a*", "b", false},
	} {
		if got := Match(c.pattern, c.s); got != c.want {
			t.Errorf("%q %q: %v", c.pattern, c.s, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("[a-]*?", "a-b")
	f.Add("[", "[")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		Match(pattern, s)
		if !Match("*", s) {
			t.Errorf("* does not match %q", s)
		}
	})
}
