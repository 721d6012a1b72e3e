package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hutchvm/hutch/internal/artifact"
)

// Flags are the arguments of go build that make its output depend on sources
// and toolchain only: no paths, no version control state, no build ID, no
// symbol tables. The linker's are last.
var Flags = []string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="}

// Platform is the environment that selects what is built.
var Platform = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1"}

// Go runs the go command in one folder, with everything that could change its
// output taken from here and not from the caller's environment.
type Go struct {
	Dir string
	// Toolchain is a version such as "go1.26.8", which is fetched when it is
	// not the installed one. Empty is the installed one.
	Toolchain string
	Stderr    io.Writer // may be nil

	extra []string
}

// Env is the environment for go commands; extra wins.
func (g *Go) Env(extra ...string) []string {
	toolchain := g.Toolchain
	if toolchain == "" {
		toolchain = "local"
	}
	var env []string
	for _, kv := range os.Environ() {
		// Kept: where caches are, how modules are fetched, and all that is not the go command's.
		name, _, _ := strings.Cut(kv, "=")
		keep := []string{"GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOSUMCHECK", "GOPRIVATE", "GONOPROXY", "GOINSECURE", "GOTMPDIR", "GOMAXPROCS"}
		if strings.HasPrefix(name, "GO") && !slices.Contains(keep, name) {
			continue
		}
		env = append(env, kv)
	}
	env = append(env, Platform...)
	env = append(env, "GOTOOLCHAIN="+toolchain, "GOENV=off", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "GOEXPERIMENT=", "GOFIPS140=off")
	return slices.Concat(env, g.extra, extra)
}

// Output runs go with args and returns what it prints.
func (g *Go) Output(args ...string) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = g.Dir, g.Env(), &out, &errs
	if g.Stderr != nil {
		cmd.Stderr = io.MultiWriter(g.Stderr, &errs)
	}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// Version returns the version of the toolchain in use.
func (g *Go) Version() (string, error) {
	out, err := g.Output("env", "GOVERSION")
	return strings.TrimSpace(string(out)), err
}

// Package is what go list tells about a package, as far as it is used here.
type Package struct {
	ImportPath string
	Dir        string
	Standard   bool
	GoFiles    []string
	EmbedFiles []string
	SFiles     []string
	HFiles     []string
	Module     *ModuleInfo
}

// ModuleInfo is a module of the build list.
type ModuleInfo struct {
	Path, Version, Dir, Sum string
	Main                    bool
}

// Deps lists the packages named and all that they are compiled from.
func (g *Go) Deps(pkgs ...string) ([]Package, error) {
	out, err := g.Output(append([]string{"list", "-deps", "-json=ImportPath,Dir,Standard,GoFiles,EmbedFiles,SFiles,HFiles,Module"}, pkgs...)...)
	if err != nil {
		return nil, err
	}
	var list []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		list = append(list, p)
	}
}

// Modules returns the third-party modules that packages come from, sorted by path.
func Modules(pkgs []Package) []ModuleInfo {
	var list []ModuleInfo
	for _, p := range pkgs {
		if p.Module != nil && !p.Module.Main && !slices.ContainsFunc(list, func(m ModuleInfo) bool { return m.Path == p.Module.Path }) {
			list = append(list, *p.Module)
		}
	}
	slices.SortFunc(list, func(a, b ModuleInfo) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// WithSums turns the modules into what SHA256SUMS records, taking their hashes
// from the text of a go.sum file.
func WithSums(list []ModuleInfo, goSum []byte) ([]artifact.Module, error) {
	sums := map[string]string{}
	for line := range strings.Lines(string(goSum)) {
		if f := strings.Fields(line); len(f) == 3 {
			sums[f[0]+" "+f[1]] = f[2]
		}
	}
	var out []artifact.Module
	for _, m := range list {
		sum := sums[m.Path+" "+m.Version]
		if sum == "" {
			return nil, fmt.Errorf("module %s %s is not in go.sum", m.Path, m.Version)
		}
		out = append(out, artifact.Module{Path: m.Path, Version: m.Version, Sum: sum})
	}
	return out, nil
}

// MainFiles lists the files of the main module that the packages are compiled
// from, like [Sources].
func MainFiles(root string, pkgs []Package) []string {
	var files []string
	for _, p := range pkgs {
		if p.Module == nil || !p.Module.Main {
			continue
		}
		rel, err := filepath.Rel(root, p.Dir)
		if err != nil {
			continue // not below root, so not of this module
		}
		for _, name := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.EmbedFiles) {
			files = append(files, filepath.ToSlash(filepath.Join(rel, name)))
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// Elsewhere copies files from root to dir and returns a Go that works in the
// copy, with a home and a build cache of its own. Only the module cache is shared.
func (g *Go) Elsewhere(root, dir string, files []string) (*Go, error) {
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			return nil, err
		}
	}
	cache, err := g.Output("env", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, ".home")
	return &Go{Dir: dir, Toolchain: g.Toolchain, Stderr: g.Stderr, extra: append(slices.Clone(g.extra),
		"HOME="+home, "GOCACHE="+filepath.Join(home, "cache"), "GOMODCACHE="+strings.TrimSpace(string(cache)))}, nil
}
