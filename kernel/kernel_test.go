package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestImageIsCurrent fails when an input of the build or one of its products
// changed since SHA256SUMS was written, just as build.sh --check does.
func TestImageIsCurrent(t *testing.T) {
	sums, err := os.ReadFile("SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(sums)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		want, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("strange line %q", line)
		}
		names = append(names, name)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != want {
			t.Errorf("%s changed since the kernel was built; run kernel/build.sh", name)
		}
	}
	want, err := filepath.Glob("patches/*.patch")
	if err != nil || len(want) == 0 {
		t.Fatal("no patches", err)
	}
	for _, name := range append(want, "build.sh", "config/hutch.fragment", "config/vmlinux.config", "vmlinux.zst", "image.gen.go", "COPYING", "SOURCE") {
		if !slices.Contains(names, name) {
			t.Errorf("SHA256SUMS does not cover %s", name)
		}
	}
}

func TestEmbedded(t *testing.T) {
	sum := sha256.Sum256(compressed)
	if got := hex.EncodeToString(sum[:]); got != Digest() {
		t.Errorf("embedded bytes have digest %s, Digest says %s", got, Digest())
	}
	vmlinux, err := ELF()
	if err != nil {
		t.Fatal(err)
	}
	sum = sha256.Sum256(vmlinux)
	if got := hex.EncodeToString(sum[:]); got != elfDigest {
		t.Errorf("vmlinux has digest %s, want %s", got, elfDigest)
	}
	if !strings.Contains(string(vmlinux), "Linux version "+Release()+" (hutch@hutch)") {
		t.Error("vmlinux does not carry its release, or not the neutral builder's name")
	}
}

// TestFragment checks that every line of the fragment holds in the
// configuration that the kernel was built with.
func TestFragment(t *testing.T) {
	fragment, err := os.ReadFile("config/hutch.fragment")
	if err != nil {
		t.Fatal(err)
	}
	set := configLines(Config())
	off := regexp.MustCompile(`^# (CONFIG_[A-Z0-9_]+) is not set$`)
	seen := map[string]bool{}
	for line := range strings.Lines(string(fragment)) {
		line = strings.TrimSpace(line)
		name, _, isOn := strings.Cut(line, "=")
		switch m := off.FindStringSubmatch(line); {
		case m != nil:
			name = m[1]
			if v, ok := set[name]; ok {
				t.Errorf("%s is %s", name, v)
			}
		case strings.HasPrefix(line, "CONFIG_") && isOn:
			if got := name + "=" + set[name]; got != line {
				t.Errorf("%s, built with %s", line, got)
			}
		default:
			continue
		}
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
	}
	if len(seen) < 300 {
		t.Errorf("only %d options found", len(seen))
	}
}

func TestFeatures(t *testing.T) {
	set := configLines(Config())
	seen := map[string]bool{}
	for _, f := range Features() {
		if f.Name == "" || seen[f.Name] {
			t.Errorf("feature %q has no name of its own", f.Name)
		}
		seen[f.Name] = true
		if len(f.Config) == 0 {
			t.Errorf("%s: no option", f.Name)
		}
		for _, c := range f.Config {
			name, value, _ := strings.Cut(c, "=")
			if set[name] != value {
				t.Errorf("%s: want %s, kernel has %q", f.Name, c, set[name])
			}
		}
		for _, p := range f.Paths {
			if !strings.HasPrefix(p, "/") {
				t.Errorf("%s: path %s", f.Name, p)
			}
		}
	}
}

// TestAbsent lists what must stay out: hardware that is not there costs boot
// time to look for, and the others widen what a guest can reach for no use.
func TestAbsent(t *testing.T) {
	set := configLines(Config())
	for _, name := range []string{"ACPI", "PCI", "VT", "INPUT", "SERIO", "RELOCATABLE", "DEBUG_FS", "PVPANIC", "KEXEC", "DEVMEM"} {
		if v, ok := set["CONFIG_"+name]; ok {
			t.Errorf("CONFIG_%s is %s", name, v)
		}
	}
}

func TestLicence(t *testing.T) {
	copying, err := os.ReadFile("COPYING")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GNU GENERAL PUBLIC LICENSE", "Version 2, June 1991", "Linux-syscall-note", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(string(copying), want) {
			t.Errorf("COPYING lacks %q", want)
		}
	}
	source, err := os.ReadFile("SOURCE")
	if err != nil {
		t.Fatal(err)
	}
	pkg, version, ok := strings.Cut(Version(), " ")
	if !ok || !strings.Contains(string(source), pkg) || !strings.Contains(string(source), "apt-get source linux="+version) {
		t.Errorf("SOURCE does not name %s", Version())
	}
}

// configLines maps the options of a .config file to their values.
func configLines(text string) map[string]string {
	set := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			set[name] = value
		}
	}
	return set
}
