// Package house keeps the shape of the source tree: which package may import
// which, which third-party modules each may use, and where unsafe is allowed.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hutchvm/hutch"

// room is what the packages below one folder may import beside the standard
// library and their own subfolders.
type room struct {
	ours   []string // folders of this module
	theirs []string // modules of others
	unsafe bool
}

const sys = "golang.org/x/sys"

// rooms is the house of ARCHITECTURE.md. The longest matching folder counts.
// Tests may use more; they are not checked.
var rooms = map[string]room{
	"kvm":                {theirs: []string{sys}, unsafe: true},
	"virtio/guestmem":    {theirs: []string{sys}, unsafe: true},
	"virtio/virtq":       {ours: []string{"virtio/guestmem"}},
	"virtio":             {ours: []string{"virtio"}, theirs: []string{sys}},
	"boot":               {ours: []string{"kvm", "virtio/guestmem"}},
	"vmm":                {ours: []string{"kvm", "boot", "virtio"}, theirs: []string{sys}},
	"kernel":             {ours: []string{"internal/artifact", "internal/cachefile"}, theirs: []string{"github.com/klauspost/compress", sys}},
	"initramfs":          {ours: []string{"internal/artifact", "internal/cachefile"}, theirs: []string{"github.com/klauspost/compress", "github.com/u-root/u-root"}},
	"rootfs/base":        {ours: []string{"internal/artifact", "internal/cachefile"}, theirs: []string{"github.com/klauspost/compress"}},
	"rootfs/erofs":       {},
	"rootfs/layer":       {ours: []string{"rootfs/erofs"}, theirs: []string{"github.com/klauspost/compress", sys}},
	"rootfs/oci":         {ours: []string{"rootfs/layer", "rootfs/erofs", "internal/cachefile"}, theirs: []string{"github.com/google/go-containerregistry", "github.com/klauspost/compress", sys}},
	"rootfs/patch":       {ours: []string{"rootfs/erofs", "rootfs/layer"}, theirs: []string{sys}},
	"rootfs/ext4":        {theirs: []string{sys}},
	"rootfs/diskimage":   {ours: []string{"virtio/blk"}, theirs: []string{"github.com/klauspost/compress", sys}},
	"rootfs/share":       {theirs: []string{"github.com/hanwen/go-fuse/v2", sys}},
	"rootfs/volume":      {ours: []string{"rootfs/share", "rootfs/ext4"}, theirs: []string{sys}},
	"netstack":           {ours: []string{"virtio/net", "virtio/guestmem"}, theirs: []string{"gvisor.dev/gvisor", "golang.org/x/net", sys}},
	"netstack/policy":    {},
	"netstack/dns":       {ours: []string{"netstack/policy"}, theirs: []string{"golang.org/x/net"}},
	"agent/proto":        {},
	"agent/guest":        {ours: []string{"agent/proto"}, theirs: []string{sys}},
	"agent/client":       {ours: []string{"agent/proto"}},
	"agent/cmd":          {ours: []string{"agent/guest"}},
	"sandbox":            {ours: []string{"vmm", "boot", "virtio", "kernel", "initramfs", "rootfs", "netstack", "agent/client", "agent/proto", "internal/kvmprobe"}, theirs: []string{sys, "golang.org/x/term"}},
	"cmd/hutch":          {ours: []string{"sandbox"}, theirs: []string{"github.com/spf13/cobra", "github.com/vbauerster/mpb/v8", "golang.org/x/term"}},
	"cmd/kvmhost":        {ours: []string{"internal/kvmhost", "internal/kvmprobe"}},
	"bench":              {ours: []string{"sandbox", "kernel", "internal/kvmtest"}},
	"internal/artifact":  {ours: []string{"internal/cachefile"}, theirs: []string{"github.com/klauspost/compress"}},
	"internal/cachefile": {theirs: []string{sys}},
	"internal/kvmprobe":  {theirs: []string{sys}},
	"internal/kvmtest":   {ours: []string{"internal/kvmprobe"}},
	"internal/kvmhost":   {ours: []string{"internal/kvmprobe"}, theirs: []string{sys, "golang.org/x/term", "github.com/u-root/u-root", "github.com/creack/pty", "github.com/klauspost/compress"}},
	"internal/house":     {},

	"rootfs/erofs/erofstest": {ours: []string{"rootfs/erofs"}, theirs: []string{sys}},
}

type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
	Module     *struct{ Path string }
	Error      *struct{ Err string }
}

// TestImports fails when a package imports what its room does not have.
func TestImports(t *testing.T) {
	packages := list(t, "./...")
	modules := map[string]string{} // import path → module path
	for _, p := range list(t, "-deps", "./...") {
		if p.Module != nil {
			modules[p.ImportPath] = p.Module.Path
		}
	}
	for _, p := range packages {
		folder := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		name, r, ok := roomOf(folder)
		if !ok {
			t.Errorf("%s is in no room: add it to the list in this test and to ARCHITECTURE.md", folder)
			continue
		}
		for _, imp := range p.Imports {
			switch {
			case imp == "C":
				t.Errorf("%s uses cgo", folder)
			case imp == "unsafe":
				if !r.unsafe {
					t.Errorf("%s imports unsafe", folder)
				}
			case imp == module || strings.HasPrefix(imp, module+"/"):
				target := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
				if !within(target, name) && !slices.ContainsFunc(r.ours, func(o string) bool { return within(target, o) }) {
					t.Errorf("%s imports %s, which its room (%s) does not list", folder, target, name)
				}
			case modules[imp] != "":
				if !slices.Contains(r.theirs, modules[imp]) {
					t.Errorf("%s imports %s of module %s, which its room (%s) does not list", folder, imp, modules[imp], name)
				}
			}
		}
	}
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func roomOf(folder string) (string, room, bool) {
	best := ""
	for name := range rooms {
		if within(folder, name) && len(name) > len(best) {
			best = name
		}
	}
	r, ok := rooms[best]
	return best, r, ok
}

// list runs go list for the platform the project is about.
func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Standard,Module,Error"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
		}
		all = append(all, p)
	}
}
