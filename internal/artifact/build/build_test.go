package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var module = map[string]string{
	"go.mod":               "module example.org/m\n\ngo 1.26\n",
	"cmd/x/main.go":        "package main\n\nimport (\n\t_ \"fmt\"\n\t_ \"example.org/m/lib\"\n)\n",
	"cmd/x/main_test.go":   "package main\n",
	"cmd/x/main_darwin.go": "package main\n",
	"cmd/x/main_linux.go":  "package main\n",
	"cmd/x/other.go":       "//go:build cgo || arm64\n\npackage main\n",
	"lib/lib.go":           "package lib\n\nimport (\n\t_ \"embed\"\n\t_ \"example.org/m/lib/deep\"\n)\n\n//go:embed data\nvar data string\n",
	"lib/data":             "data",
	"lib/deep/deep.go":     "package deep\n",
	"lib/deep/deep.s":      "",
	"unused/unused.go":     "package unused\n",
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, module)
	root, path, err := Root(filepath.Join(dir, "cmd", "x"))
	if err != nil || root != dir || path != "example.org/m" {
		t.Fatalf("%q %q %v", root, path, err)
	}
	got, err := Sources(root, path, "example.org/m/cmd/x")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cmd/x/main.go", "cmd/x/main_linux.go", "lib/data", "lib/deep/deep.go", "lib/deep/deep.s", "lib/lib.go"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestInputs(t *testing.T) {
	digest := func(change func(root string)) [32]byte {
		t.Helper()
		root := t.TempDir() // another place each time
		write(t, root, module)
		change(root)
		var in Inputs
		in.Add("flags", "-x")
		files, err := Tree(root, "lib", func(name string) bool { return !strings.HasSuffix(name, ".s") })
		if err != nil {
			t.Fatal(err)
		}
		if err := in.AddFiles(root, files); err != nil {
			t.Fatal(err)
		}
		return in.Digest()
	}
	first := digest(func(string) {})
	for name, tc := range map[string]struct {
		change func(root string)
		same   bool
	}{
		"nothing":       {func(string) {}, true},
		"mode":          {func(root string) { os.Chmod(filepath.Join(root, "lib/data"), 0o755) }, true},
		"not an input":  {func(root string) { write(t, root, map[string]string{"cmd/x/main.go": "x"}) }, true},
		"content":       {func(root string) { write(t, root, map[string]string{"lib/data": "x"}) }, false},
		"name":          {func(root string) { os.Rename(filepath.Join(root, "lib/data"), filepath.Join(root, "lib/date")) }, false},
		"one file more": {func(root string) { write(t, root, map[string]string{"lib/new": ""}) }, false},
	} {
		if got := digest(tc.change); (got == first) != tc.same {
			t.Errorf("%s: same digest: %v", name, got == first)
		}
	}
}

func TestNotice(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		"go/LICENSE": "the standard licence", "a/LICENSE.txt": "licence of a  \r\nline 2", "a/NOTICE": "notice of a", "a/a.go": "",
		"b/README": "",
	})
	at := func(name string) ModuleInfo {
		return ModuleInfo{Path: "example.org/" + name, Version: "v1.0.0", Dir: filepath.Join(root, name)}
	}
	notice, err := Notice("The thing", filepath.Join(root, "go"), []ModuleInfo{at("a")})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the standard licence\n", "licence of a\nline 2\n", "notice of a\n"} {
		if !strings.Contains(string(notice), want) {
			t.Errorf("lacks %q", want)
		}
	}
	if strings.Contains(string(notice), root) {
		t.Error("contains the path of the module cache")
	}
	for _, tc := range []struct {
		path, version string
		want          bool
	}{
		{"example.org/a", "v1.0.0", true}, {"example.org/a", "v1.0.1", false}, {"example.org/b", "v1.0.0", false},
	} {
		if got := Noticed(notice, tc.path, tc.version); got != tc.want {
			t.Errorf("%s %s: %v", tc.path, tc.version, got)
		}
	}
	if _, err := Notice("x", filepath.Join(root, "go"), []ModuleInfo{at("b")}); err == nil {
		t.Error("a module without licence: no error")
	}
}

// The quick list of sources and the go command's must agree.
func TestSourcesAgreeWithGoList(t *testing.T) {
	root, path, err := Root(".")
	if err != nil {
		t.Fatal(err)
	}
	pkg := path + "/internal/artifact"
	got, err := Sources(root, path, pkg)
	if err != nil {
		t.Fatal(err)
	}
	g := &Go{Dir: root}
	deps, err := g.Deps(pkg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(MainFiles(root, deps), got); diff != "" {
		t.Errorf("(-go list +ours)\n%s", diff)
	}
	if list := Modules(deps); len(list) != 1 || list[0].Path != "github.com/klauspost/compress" {
		t.Errorf("modules: %v", list)
	}
}
