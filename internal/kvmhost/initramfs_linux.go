package kvmhost

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/hutchvm/hutch/internal/kvmhost/guest"
	"github.com/hutchvm/hutch/internal/kvmhost/kmod"
)

// bootModules are what the guest loads before it waits for its order. All others
// are loaded by the kernel when they are needed.
var bootModules = []string{
	"virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "virtio_blk", "crc32c_generic", "ext4", "kvm_amd",
}

// initramfs builds the archive with the guest's first process and the modules
// that it needs to reach the root file system.
func initramfs(program, modules string) ([]byte, error) {
	exe, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	if err := checkStatic(exe); err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	text, err := os.ReadFile(filepath.Join(modules, kmod.IndexName))
	if err != nil {
		return nil, err
	}
	index, err := kmod.Parse(text)
	if err != nil {
		return nil, err
	}

	records := []cpio.Record{
		directory("boot"), directory("dev"), directory("proc"), directory("root"), directory("run"), directory("sys"),
		cpio.CharDev("dev/console", 0o600, 5, 1), // without these two a program has no standard streams
		cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile(strings.TrimPrefix(guest.InitPath, "/"), string(exe), 0o755),
	}
	seen := make(map[string]bool)
	var list strings.Builder
	for _, name := range bootModules {
		order, err := index.Resolve(name)
		if err != nil {
			continue // built into this kernel
		}
		for _, m := range order {
			if seen[m.Name] {
				continue
			}
			seen[m.Name] = true
			data, err := os.ReadFile(filepath.Join(modules, m.Path))
			if err != nil {
				return nil, err
			}
			base := path.Base(m.Path)
			records = append(records, cpio.StaticFile("boot/"+base, string(data), 0o644))
			fmt.Fprintln(&list, base)
		}
	}
	records = append(records, cpio.StaticFile(strings.TrimPrefix(guest.BootList, "/"), list.String(), 0o644))

	records = append(records, cpio.StaticFile(strings.TrimPrefix(guest.BootIndex, "/"), string(text), 0o644))

	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	if err := cpio.WriteRecords(w, records); err != nil {
		return nil, err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func directory(name string) cpio.Record { return cpio.Directory(name, 0o755) }

// checkStatic refuses a program that needs a dynamic linker: there is none in
// the initial root.
func checkStatic(exe []byte) error {
	f, err := elf.NewFile(bytes.NewReader(exe))
	if err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%w: the guest's init must be static: build it with CGO_ENABLED=0", ErrConfig)
		}
	}
	return nil
}
