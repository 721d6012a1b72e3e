// Command build makes the committed files of package base: the base image,
// compressed (base.erofs.zst), the licences of what is in it (NOTICE), and
// SHA256SUMS. Run it as root on linux/amd64, anywhere in the repository:
//
//	go run ./rootfs/base/internal/build           # "make base"
//	go run ./rootfs/base/internal/build -check    # build again, compare, write nothing
//	go run ./rootfs/base/internal/build -tree DIR # only make the tree, in DIR
//
// The programs are compiled into two executables by u-root's builder. The image
// is made by mkfs.erofs of erofs-utils, which is installed with apt-get when it
// is missing. The result depends on the sources, the module versions, the Go
// toolchain and the version of erofs-utils only. -check uses the toolchain that
// SHA256SUMS names, and builds in another place with another home.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/artifact/build"
	"github.com/hutchvm/hutch/rootfs/base/internal/product"
)

func main() {
	check := flag.Bool("check", false, "build again and compare with the committed files")
	tree := flag.String("tree", "", "only make the tree, in this new folder")
	flag.Parse()
	if err := run(*check, *tree); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(check bool, tree string) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return errors.New("needs linux/amd64")
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to give files their owners")
	}
	root, _, err := build.Root(".")
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "base-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	b := &builder{root: root, tmp: tmp, cmds: filepath.Join(root, product.Folder, "cmds")}
	b.goTool = &build.Go{Dir: b.cmds}
	dir := filepath.Join(root, product.Folder)
	var committed *artifact.Sums
	if check {
		text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			return err
		}
		if committed, err = artifact.ParseSums(text); err != nil {
			return err
		}
		if err := b.elsewhere(committed.Tools["go"]); err != nil {
			return err
		}
	}
	if tree != "" {
		if err := b.executables(); err != nil {
			return err
		}
		return b.tree(tree)
	}
	files, sums, err := b.products()
	if err != nil {
		return err
	}
	if !check {
		return build.Write(dir, files)
	}
	if was, is := committed.Tools["mkfs.erofs"], sums.Tools["mkfs.erofs"]; was != is {
		return fmt.Errorf("the image was made by mkfs.erofs %s, here is %s: cannot compare", was, is)
	}
	return build.Compare(dir, files)
}

type builder struct {
	root, tmp, cmds string
	goTool          *build.Go
	box, netBox     *executable
}

// elsewhere moves the work to a copy of the sources, with an empty home and
// build cache, so that nothing of this place can get in unseen.
func (b *builder) elsewhere(toolchain string) error {
	files, err := build.Tree(b.cmds, ".", nil)
	if err != nil {
		return err
	}
	b.goTool.Toolchain = toolchain
	dir := filepath.Join(b.tmp, "copy")
	g, err := b.goTool.Elsewhere(b.cmds, dir, files)
	if err != nil {
		return err
	}
	b.goTool, b.cmds = g, dir
	return nil
}

// products makes all files, by name.
func (b *builder) products() (map[string][]byte, *artifact.Sums, error) {
	if err := installErofs(); err != nil {
		return nil, nil, err
	}
	mkfs, err := erofsVersion()
	if err != nil {
		return nil, nil, err
	}
	if err := b.executables(); err != nil {
		return nil, nil, err
	}
	tree := filepath.Join(b.tmp, "tree")
	if err := b.tree(tree); err != nil {
		return nil, nil, err
	}
	image, err := b.image(tree)
	if err != nil {
		return nil, nil, err
	}
	packed, err := artifact.Pack(image)
	if err != nil {
		return nil, nil, err
	}

	sums := &artifact.Sums{Tools: map[string]string{"mkfs.erofs": mkfs}}
	if sums.Inputs, err = product.Inputs(b.root); err != nil {
		return nil, nil, err
	}
	if sums.Tools["go"], err = b.goTool.Version(); err != nil {
		return nil, nil, err
	}
	// The builder's own packages are only there for its main function, which
	// goes into the executables.
	deps, err := b.goTool.Deps(slices.Concat(b.box.packages, b.netBox.packages, []string{bbMain})...)
	if err != nil {
		return nil, nil, err
	}
	modules := build.Modules(deps)
	goSum, err := os.ReadFile(filepath.Join(b.cmds, "go.sum"))
	if err != nil {
		return nil, nil, err
	}
	if sums.Modules, err = build.WithSums(modules, goSum); err != nil {
		return nil, nil, err
	}
	goroot, err := b.goTool.Output("env", "GOROOT")
	if err != nil {
		return nil, nil, err
	}
	notice, err := build.Notice("The base image", strings.TrimSpace(string(goroot)), modules)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range []*executable{b.box, b.netBox} {
		sums.Contents = append(sums.Contents, content(e.name, e.binary))
	}
	sums.Contents = append(sums.Contents, content("base.erofs", image))
	sums.Files = []artifact.File{
		{Name: "NOTICE", Digest: sha256.Sum256(notice)},
		{Name: "base.erofs.zst", Digest: sha256.Sum256(packed)},
	}
	return map[string][]byte{"base.erofs.zst": packed, "NOTICE": notice, "SHA256SUMS": sums.Bytes()}, sums, nil
}

func content(name string, b []byte) artifact.Content {
	return artifact.Content{Name: name, Size: int64(len(b)), Digest: sha256.Sum256(b)}
}
