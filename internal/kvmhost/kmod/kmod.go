// Package kmod finds kernel modules by name or alias, in the order in which
// they must be loaded.
//
// A kernel package that is unpacked but not installed has no modules.dep: that
// file is made by a program that the guest side may not have. This package
// reads the same facts out of the modules themselves and keeps them in an
// index of its own, one line per module:
//
//	name path alias[,alias…] dependency[,dependency…] soft[,soft…]
//
// with "-" for an empty list. Names use underscores only.
package kmod

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// IndexName is the file name of an index at the top of its module tree.
const IndexName = "modules.index"

// ErrNotFound is returned for a name or alias that no module has.
var ErrNotFound = errors.New("kmod: no such module")

// Module is one line of the index.
type Module struct {
	Name    string   // with underscores
	Path    string   // relative to the top of the tree
	Aliases []string // glob patterns
	Depends []string // names that must be loaded before
	Soft    []string // names or aliases that should be loaded before if they exist
}

// Index is the set of modules of one tree. It is immutable once read.
type Index struct {
	modules []Module
	byName  map[string]int
}

// deviceAliases begin the aliases by which a bus announces its hardware. Only
// a device manager asks for those, and there is none here.
var deviceAliases = []string{
	"pci:", "usb:", "hid:", "acpi", "of:", "dmi:", "pnp:", "platform:", "i2c:", "spi:", "pcmcia:", "sdio:",
	"mdio:", "ssb:", "bcma:", "cpu:", "input:", "serio:", "virtio:", "vmbus:", "xen:", "wmi:", "hdaudio:",
}

// Scan reads the facts about every *.ko file below tree. It is slow, a second
// or so, and meant for the moment when the tree is made.
func Scan(tree fs.FS) (*Index, error) {
	var modules []Module
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".ko" {
			return err
		}
		data, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		m, err := describe(data)
		if err != nil {
			return fmt.Errorf("kmod: %s: %w", p, err)
		}
		m.Name, m.Path = Normalize(strings.TrimSuffix(path.Base(p), ".ko")), p
		modules = append(modules, m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return newIndex(modules), nil
}

func newIndex(modules []Module) *Index {
	x := &Index{modules: modules, byName: make(map[string]int, len(modules))}
	for i, m := range modules {
		x.byName[m.Name] = i
	}
	return x
}

// Normalize gives the form of a module's name that the kernel uses inside.
func Normalize(name string) string { return strings.ReplaceAll(name, "-", "_") }

// describe reads the .modinfo section: NUL-terminated strings "key=value".
func describe(data []byte) (Module, error) {
	var m Module
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return m, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return m, errors.New("no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return m, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "alias":
			keep := !slices.ContainsFunc(deviceAliases, func(p string) bool { return strings.HasPrefix(value, p) })
			if keep && value != "" && !strings.ContainsAny(value, ", \n") {
				m.Aliases = append(m.Aliases, value)
			}
		case "depends":
			for dep := range strings.SplitSeq(value, ",") {
				if dep != "" {
					m.Depends = append(m.Depends, Normalize(dep))
				}
			}
		case "softdep":
			m.Soft = append(m.Soft, softBefore(value)...)
		}
	}
	return m, nil
}

// softBefore picks the "pre:" part of a soft dependency.
func softBefore(value string) []string {
	var names []string
	before := false
	for word := range strings.FieldsSeq(value) {
		switch word {
		case "pre:":
			before = true
		case "post:", "platform:":
			before = false
		default:
			if before {
				names = append(names, word)
			}
		}
	}
	return names
}

// Write stores the index as text.
func (x *Index) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	list := func(names []string) string {
		if len(names) == 0 {
			return "-"
		}
		return strings.Join(names, ",")
	}
	for _, m := range x.modules {
		fmt.Fprintln(b, m.Name, m.Path, list(m.Aliases), list(m.Depends), list(m.Soft))
	}
	return b.Flush()
}

// Parse reads what [Index.Write] wrote.
func Parse(text []byte) (*Index, error) {
	var modules []Module
	list := func(s string) []string {
		if s == "-" {
			return nil
		}
		return strings.Split(s, ",")
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 5 {
			return nil, fmt.Errorf("kmod: malformed index line %q", line)
		}
		modules = append(modules, Module{Name: f[0], Path: f[1], Aliases: list(f[2]), Depends: list(f[3]), Soft: list(f[4])})
	}
	return newIndex(modules), nil
}

// All returns every module. The caller must not change it.
func (x *Index) All() []Module { return x.modules }

// Resolve gives the modules to load for a name or an alias, each after those
// that it needs. An alias may belong to several modules; all of them are meant,
// as modprobe does it.
func (x *Index) Resolve(want string) ([]Module, error) {
	var order []Module
	seen := make(map[string]bool)
	if !x.add(want, &order, seen) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, want)
	}
	return order, nil
}

func (x *Index) add(want string, order *[]Module, seen map[string]bool) bool {
	if i, ok := x.byName[Normalize(want)]; ok {
		x.addModule(i, order, seen)
		return true
	}
	found := false
	for i, m := range x.modules {
		for _, alias := range m.Aliases {
			if ok, err := path.Match(Normalize(alias), Normalize(want)); err == nil && ok {
				x.addModule(i, order, seen)
				found = true
				break
			}
		}
	}
	return found
}

func (x *Index) addModule(i int, order *[]Module, seen map[string]bool) {
	m := x.modules[i]
	if seen[m.Name] {
		return
	}
	seen[m.Name] = true // before the descent, so that a circle ends
	for _, dep := range m.Soft {
		x.add(dep, order, seen)
	}
	for _, dep := range m.Depends {
		if j, ok := x.byName[dep]; ok { // one that is missing is built in
			x.addModule(j, order, seen)
		}
	}
	*order = append(*order, m)
}
