package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSed(t *testing.T) {
	const lines = "one\ntwo\nthree\nfour\n"
	for _, tc := range []struct {
		args, in, want string
	}{
		{"s/o/0/", lines, "0ne\ntw0\nthree\nf0ur\n"},
		{"s/e/E/g", lines, "onE\ntwo\nthrEE\nfour\n"},
		{"s/e/E/2", lines, "one\ntwo\nthreE\nfour\n"},
		{"-n¦s/t/T/p", lines, "Two\nThree\n"},
		{"-n¦2p", lines, "two\n"},
		{"-n¦$p", lines, "four\n"},
		{"2,3d", lines, "one\nfour\n"},
		{"/two/,/four/d", lines, "one\n"},
		{"2!d", lines, "two\n"},
		{"2,+1d", lines, "one\nfour\n"},
		{"1~2d", lines, "two\nfour\n"},
		{"0,/one/d", lines, "two\nthree\nfour\n"},
		{"/o/{s//0/;s/$/!/}", lines, "0ne!\ntw0!\nthree\nf0ur!\n"},
		{"2q", lines, "one\ntwo\n"},
		{"2a\\\nnew", lines, "one\ntwo\nnew\nthree\nfour\n"},
		{"2i new", lines, "one\nnew\ntwo\nthree\nfour\n"},
		{"2c new", lines, "one\nnew\nthree\nfour\n"},
		{"2,3c new", lines, "one\nnew\nfour\n"},
		{"=", "a\n", "1\na\n"},
		{"y/abc/xyz/", "aabbcc\n", "xxyyzz\n"},
		{"N;s/\\n/ /", lines, "one two\nthree four\n"},
		{":a;N;$!ba;s/\\n/,/g", lines, "one,two,three,four\n"},
		{"1!G;h;$!d", lines, "four\nthree\ntwo\none\n"},
		{"s,/usr/\\(.*\\)/,[\\1],", "/usr/local/bin\n", "[local]bin\n"},
		{"-E¦s/([a-z]+) ([a-z]+)/\\2 \\1/", "ab cd\n", "cd ab\n"},
		{"s/[/]/x/", "a/b\n", "axb\n"},
		{"s/a\\/b/x/", "a/b\n", "x\n"},
		{"s/.*/<&>/", "a\n", "<a>\n"},
		{"s/.*/\\U&/;s/X*/-/", "a\n", "-A\n"},
		{"s/x*/-/g", "abc\n", "-a-b-c-\n"},
		{"-E¦s/(^|,)a/\\1b/g", "a,a\n", "b,b\n"},
		{"$!N;P;D", lines, lines},
		{"s/a/b/", "a", "b"},
		{"p", "a", "a\na"},
		{"-e¦s/a/b/¦-e¦s/b/c/", "a\n", "c\n"},
		{"s/A/x/I", "a\n", "x\n"},
		{"/^$/d", "a\n\nb\n", "a\nb\n"},
		{"s/[[:space:]]*$//", "a  \n", "a\n"},
		{"s/a/\\n/;s/b/x\\ty/", "ab\n", "\nx\ty\n"},
		{"s/a/b/;ta;s/$/!/;:a", "a\nc\n", "b\nc!\n"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "in")
			if err := os.WriteFile(file, []byte(tc.in), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := capture(t, append(strings.Split(tc.args, "¦"), file)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// capture runs sed with its standard output going to a file.
func capture(t *testing.T, args []string) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	old := os.Stdout
	os.Stdout = out
	status, err := run(args)
	os.Stdout = old
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v", status, err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestInPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, []byte("a\nb\nc\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if status, err := run([]string{"-i.old", "2q;s/a/x/", file}); status != 0 || err != nil {
		t.Fatal(status, err)
	}
	for name, want := range map[string]string{file: "x\nb\nc\n", file + ".old": "a\nb\nc\n"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var got strings.Builder
		if _, err := bufio.NewReader(f).WriteTo(&got); err != nil || got.String() != want {
			t.Errorf("%s: %q, %v", filepath.Base(name), got.String(), err)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestErrors(t *testing.T) {
	for _, script := range []string{"s/a", "k", "{p", "p}", "s/a/b/z", "bnowhere", "y/ab/c/", "1,p", "s/\\(/x/"} {
		if _, err := parse(script, false); err == nil {
			t.Errorf("%q: no error", script)
		}
	}
}
