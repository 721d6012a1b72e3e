package sandbox_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/kernel"
)

// TestKernelFeatures asks a running guest for every feature that the kernel is
// promised to have.
func TestKernelFeatures(t *testing.T) {
	sb := guest(t)
	out, err := sb.Exec(t.Context(), "cat", []string{"/proc/config.gz"})
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(out.StdoutBytes()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		config[strings.TrimSpace(line)] = true
	}
	filesystems := map[string]bool{}
	for _, f := range strings.Fields(shell(t, sb, "cat /proc/filesystems")) {
		filesystems[f] = true
	}
	features := kernel.Features()
	if len(features) < 30 {
		t.Errorf("only %d features are listed", len(features))
	}
	var paths []string
	for _, f := range features {
		for _, symbol := range f.Config {
			if !config[symbol] {
				t.Errorf("%s: %s is not in the guest's /proc/config.gz", f.Name, symbol)
			}
		}
		for _, fs := range f.Filesystems {
			if !filesystems[fs] {
				t.Errorf("%s: %s is not in the guest's /proc/filesystems", f.Name, fs)
			}
		}
		paths = append(paths, f.Paths...)
	}
	missing := shell(t, sb, "for p in "+strings.Join(paths, " ")+`; do [ -e "$p" ] || echo "$p"; done`)
	if missing != "" {
		t.Errorf("missing in the guest:\n%s", missing)
	}
}
