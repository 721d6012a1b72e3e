package initramfs

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/initramfs/internal/product"
	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/artifact/build"
)

// TestAgentIsCurrent fails when the embedded agent was not built from the
// sources as they are now. Which Go toolchain built it does not matter here.
func TestAgentIsCurrent(t *testing.T) {
	s, err := artifact.ParseSums(sums)
	if err != nil {
		t.Fatal(err)
	}
	root, modulePath, err := build.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	now, err := product.Inputs(root, modulePath, s.Modules)
	if err != nil {
		t.Fatalf("%v\nrun: make agent", err)
	}
	if now != s.Inputs {
		t.Errorf("agent.zst is older than its sources\nrun: make agent\n(built from %x, sources are %x)", s.Inputs, now)
	}
}

// TestProducts looks whether the committed files belong together.
func TestProducts(t *testing.T) {
	s, err := artifact.ParseSums(sums)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range s.Files {
		b, err := os.ReadFile(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(b); got != f.Digest {
			t.Errorf("%s: sha256 %x, recorded is %x", f.Name, got, f.Digest)
		}
	}
	agent, err := Agent()
	if err != nil {
		t.Fatal(err)
	}
	archive := mustBuild(t, string(agent))
	for name, b := range map[string][]byte{agentContent: agent, archiveContent: archive} {
		want, err := s.Content(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := (artifact.Content{Name: name, Size: int64(len(b)), Digest: sha256.Sum256(b)}); got != want {
			t.Errorf("%s is not what is recorded (run: make agent)\n%s", name, cmp.Diff(want, got))
		}
	}

	bin, err := elf.NewFile(bytes.NewReader(agent))
	if err != nil {
		t.Fatal(err)
	}
	if bin.Machine != elf.EM_X86_64 {
		t.Errorf("agent is for %v", bin.Machine)
	}
	for _, p := range bin.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("agent is not static")
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(agent))
	if err != nil {
		t.Fatal(err)
	}
	if info.GoVersion != s.Tools["go"] {
		t.Errorf("agent is built by %s, recorded is %s", info.GoVersion, s.Tools["go"])
	}
	var linked []artifact.Module
	for _, m := range info.Deps {
		linked = append(linked, artifact.Module{Path: m.Path, Version: m.Version, Sum: m.Sum})
		if !build.Noticed([]byte(Notice), m.Path, m.Version) {
			t.Errorf("NOTICE lacks %s %s", m.Path, m.Version)
		}
	}
	if diff := cmp.Diff(s.Modules, linked); diff != "" {
		t.Errorf("modules (-recorded +linked)\n%s", diff)
	}
}
