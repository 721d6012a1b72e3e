// Package build holds what the programs that make committed build products
// share: it finds inputs and hashes them, runs the go command so that its output
// does not depend on the place or the user, and collects licence texts.
//
// Only build programs and tests import it.
package build

import (
	"crypto/sha256"
	"fmt"
	gobuild "go/build"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Inputs is a list of labelled facts that determine a product. The same facts
// in any order give the same digest.
type Inputs struct{ lines []string }

// Add notes a fact, such as the flags of a compiler.
func (in *Inputs) Add(label, fact string) {
	in.lines = append(in.lines, label+" "+strconv.Quote(fact)+"\n")
}

// AddFiles notes the contents of files, given by slash-separated paths relative
// to root. Their modes and times do not count.
func (in *Inputs) AddFiles(root string, files []string) error {
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		in.Add("file", fmt.Sprintf("%s %x", name, sha256.Sum256(b)))
	}
	return nil
}

// Digest is the hash of all facts.
func (in *Inputs) Digest() [sha256.Size]byte {
	lines := slices.Clone(in.lines)
	slices.Sort(lines)
	h := sha256.New()
	for _, l := range slices.Compact(lines) {
		io.WriteString(h, l)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Tree lists the regular files below root/dir for which keep (nil: all) is
// true, as sorted slash-separated paths relative to root.
func Tree(root, dir string, keep func(name string) bool) ([]string, error) {
	var files []string
	err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(dir)), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if keep == nil || keep(rel) {
			files = append(files, rel)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

// Root finds the root folder of the module that dir (a folder) belongs to, and
// that module's path.
func Root(dir string) (root, modulePath string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			first, _, _ := strings.Cut(string(b), "\n")
			path, ok := strings.CutPrefix(first, "module ")
			if !ok {
				return "", "", fmt.Errorf("%s/go.mod: no module line at its start", dir)
			}
			return dir, strings.TrimSpace(path), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", "", fmt.Errorf("no go.mod here or above: %w", fs.ErrNotExist)
		}
		dir = parent
	}
}

// Sources lists the files of the module at root from which the package at the
// import path pkg is compiled for linux/amd64 without cgo: its own and those of
// every package of the same module that it imports, directly or not. It does
// not run the go command, so it is quick enough for a test.
func Sources(root, modulePath, pkg string) ([]string, error) {
	ctx := gobuild.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled, ctx.Compiler = "linux", "amd64", false, "gc"
	ctx.BuildTags, ctx.ToolTags = nil, nil
	var files []string
	seen := map[string]bool{pkg: true}
	for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
		rel := strings.TrimPrefix(strings.TrimPrefix(queue[0], modulePath), "/")
		dir := filepath.Join(root, filepath.FromSlash(rel))
		p, err := ctx.ImportDir(dir, 0)
		if err != nil {
			return nil, err
		}
		names := slices.Concat(p.GoFiles, p.SFiles, p.HFiles)
		for _, pattern := range p.EmbedPatterns {
			embedded, err := embeds(dir, pattern)
			if err != nil {
				return nil, err
			}
			names = append(names, embedded...)
		}
		for _, name := range names {
			files = append(files, filepath.ToSlash(filepath.Join(rel, name)))
		}
		for _, imp := range p.Imports {
			if (imp == modulePath || strings.HasPrefix(imp, modulePath+"/")) && !seen[imp] {
				seen[imp] = true
				queue = append(queue, imp)
			}
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// embeds resolves a go:embed pattern as far as this project uses them.
func embeds(dir, pattern string) ([]string, error) {
	pattern = strings.TrimPrefix(pattern, "all:")
	matches, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range matches {
		rel, err := filepath.Rel(dir, m)
		if err != nil {
			return nil, err
		}
		below, err := Tree(dir, filepath.ToSlash(rel), nil)
		if err != nil {
			return nil, err
		}
		names = append(names, below...)
	}
	return names, nil
}
