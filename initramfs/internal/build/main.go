// Command build makes the committed files of package initramfs: the agent for
// the guest, compressed (agent.zst), the licences of what is in it (NOTICE), and
// SHA256SUMS. Run it anywhere in the repository:
//
//	go run ./initramfs/internal/build           # "make agent"
//	go run ./initramfs/internal/build -check    # build again, compare, write nothing
//
// The result depends on the sources, the module versions and the Go toolchain
// only. -check uses the toolchain that SHA256SUMS names, and builds from a copy
// of the sources in another folder and with another home.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/initramfs/internal/product"
	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/artifact/build"
)

func main() {
	check := flag.Bool("check", false, "build again and compare with the committed files")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	root, modulePath, err := build.Root(".")
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "initramfs")
	g := &build.Go{Dir: root}
	if check {
		committed, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			return err
		}
		s, err := artifact.ParseSums(committed)
		if err != nil {
			return err
		}
		g.Toolchain = s.Tools["go"]
	}
	files, err := products(root, modulePath, g, check)
	if err != nil {
		return err
	}
	if check {
		return build.Compare(dir, files)
	}
	return build.Write(dir, files)
}

// products makes all files, by name.
func products(root, modulePath string, g *build.Go, elsewhere bool) (map[string][]byte, error) {
	pkg := modulePath + "/" + product.Agent
	deps, err := g.Deps(pkg)
	if err != nil {
		return nil, err
	}
	files, err := build.Sources(root, modulePath, pkg)
	if err != nil {
		return nil, err
	}
	if listed := build.MainFiles(root, deps); !slices.Equal(listed, files) {
		return nil, fmt.Errorf("list of sources differs from go list's:\n%q\n%q", files, listed)
	}
	modules := build.Modules(deps)
	goSum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return nil, err
	}
	sums := &artifact.Sums{}
	if sums.Modules, err = build.WithSums(modules, goSum); err != nil {
		return nil, err
	}
	if sums.Inputs, err = product.Inputs(root, modulePath, sums.Modules); err != nil {
		return nil, err
	}
	version, err := g.Version()
	if err != nil {
		return nil, err
	}
	sums.Tools = map[string]string{"go": version}

	agent, err := compile(root, g, files, pkg, hex.EncodeToString(sums.Inputs[:8]), elsewhere)
	if err != nil {
		return nil, err
	}
	if err := linked(agent, sums.Modules); err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	if err := initramfs.Build(&archive, agent); err != nil {
		return nil, err
	}
	if err := initramfs.Check(bytes.NewReader(archive.Bytes()), int64(archive.Len())); err != nil {
		return nil, err
	}
	packed, err := artifact.Pack(agent)
	if err != nil {
		return nil, err
	}
	goroot, err := g.Output("env", "GOROOT")
	if err != nil {
		return nil, err
	}
	notice, err := build.Notice("The guest agent", strings.TrimSpace(string(goroot)), modules)
	if err != nil {
		return nil, err
	}
	sums.Contents = []artifact.Content{
		{Name: "agent", Size: int64(len(agent)), Digest: sha256.Sum256(agent)},
		{Name: "initramfs.cpio", Size: int64(archive.Len()), Digest: sha256.Sum256(archive.Bytes())},
	}
	sums.Files = []artifact.File{
		{Name: "NOTICE", Digest: sha256.Sum256(notice)},
		{Name: "agent.zst", Digest: sha256.Sum256(packed)},
	}
	return map[string][]byte{"agent.zst": packed, "NOTICE": notice, "SHA256SUMS": sums.Bytes()}, nil
}

// compile builds the agent; elsewhere, from a copy and with an empty home and
// build cache, so that nothing of this place can get in unseen. The agent tells
// the host what name its build has.
func compile(root string, g *build.Go, files []string, pkg, name string, elsewhere bool) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "agent-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "agent")
	args := slices.Concat([]string{"build", "-o", out}, build.Flags)
	args[len(args)-1] += " -X main.build=" + name // the linker's flags are last
	args = append(args, pkg)
	if elsewhere {
		if g, err = g.Elsewhere(root, filepath.Join(tmp, "copy"), append(files, "go.mod", "go.sum")); err != nil {
			return nil, err
		}
	}
	if _, err := g.Output(args...); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// linked makes sure that the executable consists of the modules listed.
func linked(agent []byte, modules []artifact.Module) error {
	info, err := buildinfo.Read(bytes.NewReader(agent))
	if err != nil {
		return err
	}
	var got []artifact.Module
	for _, m := range info.Deps {
		got = append(got, artifact.Module{Path: m.Path, Version: m.Version, Sum: m.Sum})
	}
	if !slices.Equal(modules, got) {
		return fmt.Errorf("modules in the executable differ from go list's:\n%v\n%v", got, modules)
	}
	return nil
}
