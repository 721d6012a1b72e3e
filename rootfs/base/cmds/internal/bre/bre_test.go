package bre

import "testing"

func TestCompile(t *testing.T) {
	for _, tc := range []struct {
		expr     string
		extended bool
		text     string
		want     bool
	}{
		{"a*b", false, "aab", true},
		{"*b", false, "a*b", true},
		{`\(a\|b\)c`, false, "bc", true},
		{"(a)", false, "a", false},
		{"(a)", false, "(a)", true},
		{"(a|b)+$", true, "xab", true},
		{"a+", false, "aa", false},
		{`a\+`, false, "aa", true},
		{"a+", true, "aa", true},
		{`a\{2\}`, false, "aa", true},
		{`a\{2\}`, false, "ab", false},
		{"a{2}", true, "aa", true},
		{"[]x]", false, "]", true},
		{"[^]x]", false, "]", false},
		{`[\.]`, false, `\`, true},
		{"[[:digit:]]x", false, "1x", true},
		{"a^b", false, "a^b", true},
		{"a$b", false, "a$b", true},
		{`\.`, false, "a", false},
		{`\w\s`, true, "a ", true},
		{`x/y`, false, "x/y", true},
	} {
		re, err := Compile(tc.expr, tc.extended, false)
		if err != nil {
			t.Errorf("%q: %v", tc.expr, err)
			continue
		}
		if got := re.MatchString(tc.text); got != tc.want {
			t.Errorf("%q (extended %v) on %q: %v, is %q", tc.expr, tc.extended, tc.text, got, re)
		}
	}
	if re, err := Compile("AB", false, true); err != nil || !re.MatchString("xab") {
		t.Errorf("case: %v", err)
	}
}
