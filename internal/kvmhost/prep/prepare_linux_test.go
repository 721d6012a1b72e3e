package prep

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hutchvm/hutch/internal/kvmhost/kmod"
)

// fakeTools puts stand-ins for the package tools on the PATH, as the only
// programs there besides a few harmless ones, and returns the file in which
// they note their calls.
func fakeTools(t *testing.T, tools map[string]string) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	for name, body := range tools {
		script := fmt.Sprintf("#!/bin/sh\nPATH=/usr/bin:/bin\necho %s \"$@\" >> %s\n%s\n", name, calls, body)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return calls
}

// fakePackage is the content of a kernel package.
func fakePackage(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	ko := "not looked into"
	for name, data := range map[string]string{
		"./boot/vmlinuz-6.1.0-1-amd64":                                   string(bzImage(4, packed(t, "gzip", testKernel(t)))),
		"./lib/modules/6.1.0-1-amd64/kernel/drivers/gpu/big.ko":          ko,
		"./lib/modules/6.1.0-1-amd64/kernel/drivers/net/ethernet/big.ko": ko,
		"./lib/modules/6.1.0-1-amd64/modules.builtin":                    "x",
		"./usr/share/doc/x":                                              "y",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "package.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func goodTools(t *testing.T) map[string]string {
	return map[string]string{
		qemuProgram: "echo QEMU emulator version 10.0.2",
		"apt-cache": "echo Depends: linux-image-6.1.0-1-amd64",
		"apt-get":   `case "$*" in *download*) sleep 0.2; echo deb > linux-image-6.1.0-1-amd64_6.1.1-1_amd64.deb;; esac`,
		"dpkg-deb":  "cat " + fakePackage(t),
		"mkfs.ext4": "",
	}
}

func TestPrepareOnce(t *testing.T) {
	calls := fakeTools(t, goodTools(t))
	cache := t.TempDir()
	stale := filepath.Join(cache, layout, "tmp-1", "x")
	if err := os.MkdirAll(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			h, err := Prepare(Config{Cache: cache})
			if err != nil {
				t.Error(err)
				return
			}
			for _, name := range []string{h.Kernel, h.Scratch, filepath.Join(h.Modules, kmod.IndexName)} {
				if _, err := os.Stat(name); err != nil {
					t.Error(err)
				}
			}
			if h.QEMU.Major != 10 || h.Release != "linux-image-6.1.0-1-amd64_6.1.1-1_amd64" {
				t.Errorf("host %+v", h)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), " download "); n != 1 {
		t.Errorf("%d downloads, want 1:\n%s", n, text)
	}
	left, _ := filepath.Glob(filepath.Join(cache, layout, "tmp-*"))
	if len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}

	t.Run("refresh", func(t *testing.T) {
		if _, err := Prepare(Config{Cache: cache, Refresh: true}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPrepareErrors(t *testing.T) {
	without := func(name string) map[string]string {
		tools := goodTools(t)
		delete(tools, name)
		return tools
	}
	with := func(name, body string) map[string]string {
		tools := goodTools(t)
		tools[name] = body
		return tools
	}
	for name, c := range map[string]struct {
		tools map[string]string
		want  error
		text  string
	}{
		"no programs at all":   {nil, ErrNoQEMU, "install the package qemu-system-x86"},
		"QEMU does not come":   {without(qemuProgram), ErrNoQEMU, "qemu-system-x86_64"},
		"no dpkg-deb":          {without("dpkg-deb"), ErrNoTool, "dpkg-deb"},
		"no kernel known":      {with("apt-cache", "exit 1"), ErrNoKernel, "package lists"},
		"download fails":       {with("apt-get", "echo no network >&2; exit 100"), ErrNoKernel, "no network"},
		"package is empty":     {with("dpkg-deb", "tar c -T /dev/null"), ErrNoKernel, "no vmlinuz"},
		"package is broken":    {with("dpkg-deb", "exit 2"), nil, "dpkg-deb"},
		"file system not made": {with("mkfs.ext4", "echo disk full >&2; exit 1"), nil, "disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && name == "QEMU does not come" {
				c.text = "only root can"
			}
			fakeTools(t, c.tools)
			cache := t.TempDir()
			_, err := Prepare(Config{Cache: cache})
			var e *Error
			if !errors.As(err, &e) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v; want %v with %q", err, c.want, c.text)
			}
			entries, _ := filepath.Glob(filepath.Join(cache, layout, "*-*"))
			if len(entries) != 0 {
				t.Errorf("left behind: %q", entries)
			}
		})
	}
}

func TestWanted(t *testing.T) {
	for p, want := range map[string]bool{
		"drivers/net/tun.ko": true, "drivers/net/ethernet/x/y.ko": false, "fs/9p/9p.ko": true,
		"net/netfilter/nf_tables.ko": true, "sound/soundcore.ko": false, "arch/x86/kvm/kvm.ko": true,
	} {
		if got := wanted(p); got != want {
			t.Errorf("wanted(%q) = %t", p, got)
		}
	}
}
