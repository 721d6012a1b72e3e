package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/internal/artifact/build"
	"github.com/hutchvm/hutch/rootfs/base/internal/argv"
	"github.com/hutchvm/hutch/rootfs/base/internal/product"
)

const (
	makebb = "github.com/u-root/gobusybox/src/cmd/makebb"
	bbMain = "github.com/u-root/gobusybox/src/pkg/bb/bbmain/cmd"
)

// executable is one binary that is many programs.
type executable struct {
	name     string
	packages []string // import paths of the programs
	binary   []byte
}

// programs are the names of the programs, without aliases.
func (e *executable) programs() []string {
	var names []string
	for _, p := range e.packages {
		names = append(names, path.Base(p))
	}
	slices.Sort(names)
	return names
}

// executables compiles both.
func (b *builder) executables() error {
	small, err := imports(filepath.Join(b.cmds, "commands.go"))
	if err != nil {
		return err
	}
	net, err := imports(filepath.Join(b.cmds, "net.go"))
	if err != nil {
		return err
	}
	own, err := b.ownCommands()
	if err != nil {
		return err
	}
	b.box = &executable{name: product.Box, packages: slices.Concat(small, own)}
	b.netBox = &executable{name: product.NetBox, packages: net}
	for _, e := range []*executable{b.box, b.netBox} {
		if err := b.compile(e); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// imports lists the programs that a Go file of the command module imports.
func imports(file string) ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if p != makebb {
			list = append(list, p)
		}
	}
	return list, nil
}

// ownCommands lists the main packages of the command module itself.
func (b *builder) ownCommands() ([]string, error) {
	out, err := b.goTool.Output("list", "-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`, "./...")
	return strings.Fields(string(out)), err
}

// compile lets u-root's builder turn the programs into packages of one program,
// and compiles that with the flags of all our products.
func (b *builder) compile(e *executable) error {
	gen := filepath.Join(b.tmp, "gen-"+e.name)
	args := append([]string{"run", makebb, "-g", "-gen-dir", gen, "-o", filepath.Join(b.tmp, e.name)}, e.packages...)
	if _, err := b.goTool.Output(args...); err != nil {
		return err
	}
	main := filepath.Join(gen, "src", "bb.u-root.com", "bb")
	for name, text := range map[string]string{
		"names.go": names(e),
		"argv.go":  strings.Replace(argv.Source, "\npackage argv\n", "\npackage main\n", 1),
	} {
		if err := os.WriteFile(filepath.Join(main, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	binary := filepath.Join(b.tmp, e.name)
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", binary}, build.Flags, []string{"."})...)
	cmd.Dir = main
	// What the builder generates is a GOPATH, not a module.
	cmd.Env = b.goTool.Env("GO111MODULE=off", "GOPATH="+gen)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	var err error
	e.binary, err = os.ReadFile(binary)
	return err
}

// names is a source file that is added to the generated program: it sees the
// command line before the program that is meant. Without a module the toolchain
// would fall back to the behaviour of an old Go version.
func names(e *executable) string {
	var s strings.Builder
	s.WriteString(`//go:debug default=go1.26

package main

import (
	"os"
	"path/filepath"
)

func init() {
	if len(os.Args) == 0 {
		return
	}
	name := filepath.Base(os.Args[0])
	switch name {
`)
	aliases := e.aliases()
	for _, alias := range slices.Sorted(maps.Keys(aliases)) {
		name, implied := aliases[alias][0], aliases[alias][1:]
		fmt.Fprintf(&s, "\tcase %q:\n\t\tname = %q\n\t\tos.Args = append(%#v, os.Args[1:]...)\n", alias, name, append([]string{name}, implied...))
	}
	s.WriteString("\t}\n\tos.Args = append(os.Args[:1:1], normalize(name, os.Args[1:])...)\n}\n")
	return s.String()
}

// aliases are the further names of the programs in this executable.
func (e *executable) aliases() map[string][]string {
	have := map[string][]string{}
	programs := e.programs()
	for alias, command := range product.Aliases {
		if slices.Contains(programs, command[0]) {
			have[alias] = command
		}
	}
	return have
}
