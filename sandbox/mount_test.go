package sandbox_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

func TestMountOptions(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, mounts := range map[string]map[string]sandbox.Mount{
		"relative guest path":  {"data": sandbox.MountBind(dir)},
		"empty guest path":     {"": sandbox.MountBind(dir)},
		"the root":             {"/": sandbox.MountBind(dir)},
		"the root, written":    {"/./": sandbox.MountBind(dir)},
		"dots":                 {"/a/../b": sandbox.MountBind(dir)},
		"NUL":                  {"/a\x00b": sandbox.MountBind(dir)},
		"twice":                {"/a": sandbox.MountBind(dir), "/a/": sandbox.MountTmpfs(0)},
		"no kind":              {"/a": {Source: dir}},
		"no host path":         {"/a": sandbox.MountBind("")},
		"missing host path":    {"/a": sandbox.MountBind(dir + "/none")},
		"a device":             {"/a": sandbox.MountBind("/dev/null")},
		"bad volume name":      {"/a": sandbox.MountNamed("../v")},
		"a tmpfs with source":  {"/a": {Kind: sandbox.KindTmpfs, Source: dir}},
		"a bind with size":     {"/a": {Kind: sandbox.KindBind, Source: dir, Size: 1}},
		"a tmpfs that mirrors": {"/a": {Kind: sandbox.KindTmpfs, Mirror: true}},
		"a volume with quota":  {"/a": {Kind: sandbox.KindNamed, Source: "v", Quota: 1}},
		"a disk directory":     {"/a": sandbox.MountDisk(dir, "raw", "ext4")},
		"a disk of no format":  {"/a": sandbox.MountDisk(file, "", "ext4")},
		"an unknown format":    {"/a": sandbox.MountDisk(file, "vhd", "ext4")},
		"a strange fs type":    {"/a": sandbox.MountDisk(file, "raw", "ext4,noload")},
	} {
		_, err := sandbox.Create(t.Context(), "mounts", sandbox.WithHome(dir+"/home"), sandbox.WithMounts(mounts))
		if !errors.Is(err, sandbox.ErrInvalidConfig) || !strings.Contains(err.Error(), "WithMounts: ") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for target := range mounts {
			if !strings.Contains(err.Error(), strings.TrimRight(target, "/")) {
				t.Errorf("%s: the error does not name the mount: %v", name, err)
			}
		}
	}
	if _, err := os.Stat(dir + "/home"); err == nil {
		t.Error("a refused option had a side effect")
	}
}

// script runs a shell script in the guest; its output must be want.
func script(t *testing.T, sb *sandbox.Sandbox, script, want string) {
	t.Helper()
	out, err := sb.Shell(t.Context(), script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	if got := strings.TrimSpace(out.Stdout() + out.Stderr()); got != want {
		t.Errorf("%s\nprinted %q\nwant    %q", script, got, want)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestMounts(t *testing.T) {
	kvmtest.RequireLinux(t)
	top := t.TempDir()
	for name, content := range map[string]string{
		"dir/file": "from the host", "dir/sub/x": "x", "ro/file": "read only", "single": "single", "single-ro": "single ro", "outside": "secret",
	} {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", top+"/dir/leak"); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.CreateVolume(t.Context(), "cache", sandbox.VolumeOptions{Quota: 4 << 20}, sandbox.WithHome(home)); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(top, "disk.raw")
	mkfs(t, disk)
	sb, err := sandbox.Create(t.Context(), "mounts", sandbox.WithHome(home), sandbox.WithEphemeral(), sandbox.WithMounts(map[string]sandbox.Mount{
		"/data":            sandbox.MountBind(top + "/dir"),
		"/data/sub/inner":  sandbox.MountTmpfs(1<<20, sandbox.MountNoExec),
		"/ro":              sandbox.MountBind(top+"/ro", sandbox.MountReadOnly),
		"/etc/single":      sandbox.MountBind(top + "/single"),
		"/mnt/deep/single": sandbox.MountBind(top+"/single-ro", sandbox.MountReadOnly),
		"/cache":           sandbox.MountNamed("cache", sandbox.MountNoSuid, sandbox.MountNoDev, sandbox.MountNoExec),
		"/disk":            sandbox.MountDisk(disk, "", "ext4"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	script(t, sb, "cat /data/file /ro/file /etc/single /mnt/deep/single", "from the hostread onlysinglesingle ro")
	script(t, sb, "cat /data/leak 2>/dev/null; readlink /data/leak; ls /data", "../outside\nfile\nleak\nsub")
	script(t, sb, "echo changed >/data/new && mkdir -p /data/a/b && echo deep >/data/a/b/c && mv /data/a /data/z && cat /data/z/b/c", "deep")
	if got := readFile(t, top+"/dir/new") + readFile(t, top+"/dir/z/b/c"); got != "changed\ndeep\n" {
		t.Errorf("on the host: %q", got)
	}
	script(t, sb, "for f in /ro/file /ro/new /mnt/deep/single; do echo x 2>/dev/null >$f || echo refused; done; rm /ro/file 2>/dev/null || echo refused", "refused\nrefused\nrefused\nrefused")
	script(t, sb, "mount -o remount,rw,bind /ro 2>/dev/null; echo x 2>/dev/null >/ro/new || echo refused", "refused")
	if got := readFile(t, top+"/ro/file") + readFile(t, top+"/single-ro"); got != "read onlysingle ro" {
		t.Errorf("what is read-only was changed: %q", got)
	}
	script(t, sb, "echo again >/etc/single; cat /etc/single", "again")
	if got := readFile(t, top+"/single"); got != "again\n" {
		t.Errorf("single file on the host: %q", got)
	}
	// Owners are the guest's own affair.
	script(t, sb, "touch /data/owned && chown 12:34 /data/owned && chmod 4711 /data/owned && stat -c '%u %g %a' /data/owned", "12 34 4711")
	st, err := os.Stat(top + "/dir/owned")
	if err != nil || st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		t.Errorf("on the host: %v, %v", st.Mode(), err)
	}
	script(t, sb, "echo '#!/bin/sh' >/data/sub/inner/x && chmod +x /data/sub/inner/x && /data/sub/inner/x 2>/dev/null || echo refused", "refused")
	script(t, sb, "echo '#!/bin/sh' >/cache/x && chmod +x /cache/x && /cache/x 2>/dev/null || echo refused; rm /cache/x", "refused")
	// The volume's quota.
	script(t, sb, "head -c 3000000 /dev/zero >/cache/a && head -c 3000000 /dev/zero 2>/dev/null >/cache/b || echo full; rm /cache/b; head -c 500000 /dev/zero >/cache/b && echo fits", "full\nfits")
	// A host's change is seen.
	if err := os.WriteFile(top+"/dir/file", []byte("changed by the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	script(t, sb, "sleep 1.2; cat /data/file", "changed by the host")
	script(t, sb, "echo kept >/disk/file; cat /disk/file; mkdir -p /disk/d", "kept")
	script(t, sb, "grep -c virtiofs /proc/mounts; ls -A /run | grep -c hutch-shares", "5\n0")

	if err := sandbox.RemoveVolume(t.Context(), "cache", sandbox.WithHome(home)); !errors.Is(err, sandbox.ErrVolumeInUse) {
		t.Errorf("removing a volume in use: %v", err)
	}
	if _, err := sandbox.Create(t.Context(), "second", sandbox.WithHome(home), sandbox.WithEphemeral(),
		sandbox.WithMounts(map[string]sandbox.Mount{"/d": sandbox.MountDisk(disk, "raw", "ext4")})); err == nil {
		t.Error("two sandboxes write to one disk")
	}
	if err := sb.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	fsck(t, disk)
	v, err := sandbox.GetVolume(t.Context(), "cache", sandbox.WithHome(home))
	if err != nil {
		t.Fatal(err)
	}
	if u, err := v.Usage(t.Context()); err != nil || u.Files != 2 || u.Bytes < 3<<20 {
		t.Errorf("usage of the volume: %+v, %v", u, err)
	}
	if err := sandbox.RemoveVolume(t.Context(), "cache", sandbox.WithHome(home)); err != nil {
		t.Error(err)
	}
}

func mkfs(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

func fsck(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
}

func TestMountMissingVolume(t *testing.T) {
	kvmtest.RequireLinux(t)
	_, err := sandbox.Create(t.Context(), "none", sandbox.WithHome(home), sandbox.WithEphemeral(),
		sandbox.WithMounts(map[string]sandbox.Mount{"/x": sandbox.MountNamed("none")}))
	if !errors.Is(err, sandbox.ErrVolumeNotFound) || !strings.Contains(err.Error(), "/x") {
		t.Errorf("%v", err)
	}
}

func TestVolumes(t *testing.T) {
	ctx, at := context.Background(), sandbox.WithHome(t.TempDir())
	labels := map[string]string{"a": "b"}
	v, err := sandbox.CreateVolume(ctx, "v", sandbox.VolumeOptions{Quota: 1 << 20, Labels: labels}, at)
	if err != nil {
		t.Fatal(err)
	}
	if v.Name() != "v" || v.Quota() != 1<<20 || !maps.Equal(v.Labels(), labels) || v.Created().IsZero() {
		t.Errorf("%+v", v)
	}
	if _, err := sandbox.CreateVolume(ctx, "v", sandbox.VolumeOptions{}, at); !errors.Is(err, sandbox.ErrVolumeExists) {
		t.Errorf("second create: %v", err)
	}
	if _, err := sandbox.CreateVolume(ctx, "../v", sandbox.VolumeOptions{}, at); !errors.Is(err, sandbox.ErrInvalidConfig) {
		t.Errorf("bad name: %v", err)
	}
	if _, err := sandbox.GetVolume(ctx, "w", at); !errors.Is(err, sandbox.ErrVolumeNotFound) {
		t.Errorf("get: %v", err)
	}
	root, err := v.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.WriteFile("f", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	if _, err := root.ReadFile("../volume.json"); err == nil {
		t.Error("left the volume")
	}
	if u, err := v.Usage(ctx); err != nil || u.Files != 1 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if l, err := sandbox.ListVolumes(ctx, at); err != nil || len(l) != 1 {
		t.Errorf("list %v, %v", l, err)
	}
	if err := sandbox.RemoveVolume(ctx, "v", at); err != nil {
		t.Error(err)
	}
	if err := sandbox.RemoveVolume(ctx, "v", at); !errors.Is(err, sandbox.ErrVolumeNotFound) {
		t.Errorf("second remove: %v", err)
	}
}
