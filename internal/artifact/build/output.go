package build

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Write puts the products, by name, into dir. Each is replaced at once.
func Write(dir string, files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", files[name], 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		fmt.Printf("%s: %d bytes\n", name, len(files[name]))
	}
	return nil
}

// Compare tells which of the committed files in dir are not what was built now.
func Compare(dir string, files map[string][]byte) error {
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if !bytes.Equal(b, files[name]) {
			differ = append(differ, name)
			continue
		}
		fmt.Printf("%s: same\n", name)
	}
	if len(differ) > 0 {
		return fmt.Errorf("in %s: not what is built from the sources: %s", filepath.Base(dir), strings.Join(differ, ", "))
	}
	return nil
}

// Required returns the versions that a go.mod file requires, by module path.
// Since Go 1.17 these are the versions that a build uses.
func Required(goMod []byte) map[string]string {
	required := map[string]string{}
	inside := false
	for line := range strings.Lines(string(goMod)) {
		line, _, _ = strings.Cut(line, "//")
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "require" && f[1] == "(":
			inside = true
		case len(f) == 1 && f[0] == ")":
			inside = false
		case inside && len(f) == 2:
			required[f[0]] = f[1]
		case len(f) == 3 && f[0] == "require":
			required[f[1]] = f[2]
		}
	}
	return required
}
