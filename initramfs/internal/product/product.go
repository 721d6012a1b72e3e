// Package product says what the embedded agent is made from. The build program
// and the test that looks for a stale agent share it.
package product

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/artifact/build"
)

// Agent is the agent's main package, below the module's path.
const Agent = "agent/cmd/hutch-agent"

// Inputs hashes what determines the agent, except for the toolchain: the
// sources in the module at root, the modules that were compiled in, in the
// versions that go.mod asks for now, and the flags.
func Inputs(root, modulePath string, modules []artifact.Module) ([sha256.Size]byte, error) {
	var in build.Inputs
	in.Add("flags", strings.Join(build.Flags, "\x00"))
	in.Add("platform", strings.Join(build.Platform, "\x00"))
	files, err := build.Sources(root, modulePath, modulePath+"/"+Agent)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if err := in.AddFiles(root, files); err != nil {
		return [sha256.Size]byte{}, err
	}
	goMod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	required := build.Required(goMod)
	for _, m := range modules {
		version, ok := required[m.Path]
		if !ok {
			return [sha256.Size]byte{}, fmt.Errorf("go.mod does not require %s any more", m.Path)
		}
		in.Add("module", m.Path+" "+version)
	}
	return in.Digest(), nil
}
