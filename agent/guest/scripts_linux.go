package guest

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/hutchvm/hutch/agent/proto"
)

// scriptsDir is where the sandbox's scripts are: in memory, out of the image's way.
const scriptsDir = "/run/hutch/bin"

var errScriptName = errors.New("not a file name")

// writeScripts makes executables of scripts in dir.
func writeScripts(dir string, scripts []proto.Script) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range scripts {
		if s.Name == "" || s.Name == "." || s.Name == ".." || s.Name != filepath.Base(s.Name) {
			return withName(s.Name, errScriptName)
		}
		if err := os.WriteFile(filepath.Join(dir, s.Name), []byte(s.Content), 0o755); err != nil {
			return err
		}
	}
	return nil
}
