package build

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const ruler = "================================================================================\n"

// Notice renders the licence texts of everything that a product is compiled
// from: the Go standard library, whose folder is goroot, and the modules.
func Notice(product, goroot string, modules []ModuleInfo) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s contains code of the Go standard library and of the Go modules listed\nhere. Their licences follow.\n\n", product)
	for _, m := range modules {
		fmt.Fprintf(&b, "  %s %s\n", m.Path, m.Version)
	}
	std := ModuleInfo{Path: "std", Dir: goroot}
	for _, m := range append([]ModuleInfo{std}, modules...) {
		files, err := licences(m.Dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(m.Dir, f))
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "\n%s%s: %s\n%s\n", ruler, m.Path, f, ruler)
			for line := range strings.Lines(string(text)) {
				b.WriteString(strings.TrimRight(line, " \t\r\n") + "\n")
			}
		}
	}
	return b.Bytes(), nil
}

// licences names the files in a module's root that say under which terms and by
// whom it is given.
func licences(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	licensed := false
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		isLicence := strings.HasPrefix(upper, "LICENSE") || strings.HasPrefix(upper, "LICENCE") || strings.HasPrefix(upper, "COPYING") || strings.HasPrefix(upper, "UNLICENSE")
		if e.Type().IsRegular() && (isLicence || strings.HasPrefix(upper, "NOTICE") || upper == "PATENTS") {
			names = append(names, e.Name())
			licensed = licensed || isLicence
		}
	}
	if !licensed {
		return nil, fmt.Errorf("no licence file")
	}
	slices.Sort(names)
	return names, nil
}

// Noticed tells whether a notice has a text for the module.
func Noticed(notice []byte, path, version string) bool {
	return bytes.Contains(notice, []byte("\n  "+path+" "+version+"\n")) &&
		bytes.Contains(notice, []byte("\n"+ruler+path+": "))
}
