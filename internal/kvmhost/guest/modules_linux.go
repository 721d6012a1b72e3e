package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/kmod"
)

// loadFile loads one module; a module that is there already is no error.
func loadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// loadList loads the modules that a file of the initial root names.
func loadList(list string) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(text)) {
		if err := loadFile(filepath.Join(BootDir, name)); err != nil {
			return err
		}
	}
	return nil
}

// treeLink leads from the runtime directory to the module tree.
const treeLink = "modules"

// runModprobe is what the kernel starts when it misses a module: the arguments
// are options and then names or aliases.
func runModprobe(args []string) int {
	tree := filepath.Join(RuntimeDir, treeLink)
	index, err := readIndex(filepath.Join(tree, kmod.IndexName))
	if err != nil {
		return 1
	}
	status := 0
	for _, name := range args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		if loadModules(index, tree, name) != nil {
			status = 1
		}
	}
	return status
}

func readIndex(file string) (*kmod.Index, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return kmod.Parse(text)
}

// loadModules loads a module by name or alias, with all that it needs. It goes
// on after a failure, since of several modules with one alias some may refuse.
func loadModules(index *kmod.Index, tree, name string) error {
	modules, err := index.Resolve(name)
	if err != nil {
		return err
	}
	var first error
	for _, m := range modules {
		if err := loadFile(filepath.Join(tree, m.Path)); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// makeDeviceNodes creates the nodes whose first use loads their module, such as
// /dev/fuse: a module says so by a pair of aliases with name and number.
func makeDeviceNodes(index *kmod.Index) {
	const miscMajor = 10
	for _, m := range index.All() {
		name, minor := "", -1
		for _, a := range m.Aliases {
			if s, ok := strings.CutPrefix(a, "devname:"); ok {
				name = s
			}
			if s, ok := strings.CutPrefix(a, fmt.Sprintf("char-major-%d-", miscMajor)); ok {
				minor, _ = strconv.Atoi(s)
			}
		}
		if name == "" || minor < 0 {
			continue
		}
		path := filepath.Join("/dev", name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		// It exists when the driver is there already; all of them are safe to open up,
		// because this machine has one user's command and ends with it.
		unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(miscMajor, uint32(minor))))
		os.Chmod(path, 0o666)
	}
}
