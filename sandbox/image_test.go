package sandbox_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/erofs/go-erofs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/rootfs/base"
	"github.com/hutchvm/hutch/sandbox"
)

// baseTree is the base image as a directory, with a file more.
var baseTree = sync.OnceValues(func() (string, error) {
	img, err := base.Open(filepath.Join(home, "cache"))
	if err != nil {
		return "", err
	}
	defer img.Close()
	fsys, err := erofs.Open(img.File)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(home, "tree")
	if err := os.CopyFS(dir, fsys); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "etc/flavour"), []byte("tree\n"), 0o644)
})

// tree gives a directory that is a root file system.
func tree(t testing.TB) string {
	t.Helper()
	kvmtest.RequireLinux(t)
	dir, err := baseTree()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// treeLayer is the tree as an image layer, uncompressed: compressing is slow in
// an emulated host.
var treeLayer = sync.OnceValues(func() (v1.Layer, error) {
	dir, err := baseTree()
	if err != nil {
		return nil, err
	}
	return layerOf(os.DirFS(dir))
})

func layerOf(fsys fs.FS) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(fsys); err != nil {
		return nil, err
	}
	err := w.Close()
	return static.NewLayer(b.Bytes(), types.OCIUncompressedLayer), err
}

// testImage is the tree as an image; flavour is what its second layer writes
// into /etc/flavour.
func testImage(t testing.TB, flavour string) v1.Image {
	t.Helper()
	tree(t)
	first, err := treeLayer()
	if err != nil {
		t.Fatal(err)
	}
	second, err := layerOf(fstest.MapFS{"etc/flavour": {Data: []byte(flavour + "\n"), Mode: 0o644}})
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, first, second)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	cfg.Config = v1.Config{
		Env: []string{"PATH=/bin:/usr/bin:/sbin", "FROM_IMAGE=image", "BOTH=image"}, User: "user", WorkingDir: "/srv/app",
		Entrypoint: []string{"/bin/echo", "entry"}, Cmd: []string{"cmd", "$HOME"},
		Labels: map[string]string{"maker": "image", "sandbox.reserved": "x"},
	}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

// TestImage: an image from a registry, with all that it says, patched; then
// stopped and started, when its tag means something else.
func TestImage(t *testing.T) {
	image := testImage(t, "first")
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}

	_, err = sandbox.Create(t.Context(), "image", sandbox.WithHome(home), sandbox.WithImage(ref.String()), sandbox.WithPullPolicy(sandbox.PullNever))
	wantErr(t, "an image that is not here", err, sandbox.ErrImageNotFound)
	_, err = sandbox.Create(t.Context(), "image", sandbox.WithHome(home), sandbox.WithImage(ref.String()+"-none"))
	wantErr(t, "an image that is nowhere", err, sandbox.ErrImageNotFound)
	_, err = sandbox.Create(t.Context(), "image", sandbox.WithHome(home), sandbox.WithImage("Not A Reference"))
	wantErr(t, "a name that is none", err, sandbox.ErrInvalidConfig)
	_, err = sandbox.Create(t.Context(), "image", sandbox.WithHome(home), sandbox.WithImage(ref.String()),
		sandbox.WithPatches(sandbox.PatchText("/etc/flavour", "x")))
	wantErr(t, "a patch of what is there", err, sandbox.ErrInvalidConfig)

	session := sandbox.CreateWithProgress(t.Context(), "image", sandbox.WithHome(home), sandbox.WithMemory(128<<20), sandbox.WithImage(ref.String()),
		sandbox.WithEnv(map[string]string{"BOTH": "option"}), sandbox.WithLabels(map[string]string{"ours": "yes"}),
		sandbox.WithScripts(map[string]string{"greet": "#!/bin/sh\necho greetings from $0\n", "uname": "#!/bin/sh\necho no uname\n"}),
		sandbox.WithPatches(
			sandbox.PatchText("/etc/patched", "text\n").Mode(0o600).Owner(1000, 1000), sandbox.PatchAppend("/etc/flavour", "more\n"),
			sandbox.PatchCopyFile(host+"/file", "/opt/deep/file"), sandbox.PatchSymlink("flavour", "/etc/link"),
			sandbox.PatchMkdir("/opt/empty"), sandbox.PatchRemove("/etc/group"), sandbox.PatchRemove("/etc/nothing"),
		))
	var kinds []sandbox.PullEventKind
	for e := range session.Events() {
		if !slices.Contains(kinds, e.Kind) {
			kinds = append(kinds, e.Kind)
		}
	}
	sb, err := session.Sandbox()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sandbox.Remove(context.Background(), "image", sandbox.WithHome(home)) })
	first := sb
	t.Cleanup(func() { first.Close() })
	if !slices.Contains(kinds, sandbox.PullResolved) || kinds[len(kinds)-1] != sandbox.PullComplete {
		t.Errorf("events are %v", kinds)
	}
	const says = `cat /etc/flavour /etc/link /etc/patched /opt/deep/file; echo; stat -c %a:%u /etc/patched; ls -d /opt/empty; ls /etc/group 2>&1 | wc -l; greet; uname; pwd; id -un; echo $FROM_IMAGE $BOTH`
	got := shell(t, sb, says)
	want := "first\nmore\nfirst\nmore\ntext\nfrom the host\n600:1000\n/opt/empty\n1\ngreetings from /run/hutch/bin/greet\nno uname\n/srv/app\nuser\nimage option"
	if got != want {
		t.Errorf("the guest says\n%s\nwant\n%s", got, want)
	}
	out, err := sb.ExecDefault(t.Context())
	if err != nil || out.Stdout() != "entry cmd $HOME\n" {
		t.Errorf("the default command: %v, %v", out, err)
	}
	if l := sb.Labels(); l["maker"] != "image" || l["ours"] != "yes" || l["sandbox.reserved"] != "" {
		t.Errorf("labels are %v", l)
	}
	shell(t, sb, "echo written > /etc/flavour; rm /etc/link; mv /opt/deep /opt/moved; mkdir /etc/nothing", sandbox.WithExecUser("root"))
	if err := sb.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	if err := remote.Write(ref, testImage(t, "second")); err != nil {
		t.Fatal(err)
	}
	server.Close() // and nobody needs it
	sb, err = sandbox.Start(t.Context(), "image", sandbox.WithHome(home))
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()
	got = shell(t, sb, `cat /etc/flavour; cat /opt/moved/file; echo; ls /etc/link 2>/dev/null; ls -d /etc/nothing; cat /etc/patched; greet; pwd; id -un`)
	want = "written\nfrom the host\n/etc/nothing\ntext\ngreetings from /run/hutch/bin/greet\n/srv/app\nuser"
	if got != want {
		t.Errorf("after the start the guest says\n%s\nwant\n%s", got, want)
	}
	h, err := sandbox.Get(t.Context(), "image", sandbox.WithHome(home))
	if err != nil || h.Labels()["maker"] != "image" {
		t.Errorf("%+v, %v", h, err)
	}
	digest, _ := image.Digest()
	if h.ImageDigest() != digest.String() || h.Config().Image != ref.String() {
		t.Errorf("made of %s (%s), want %s", h.Config().Image, h.ImageDigest(), digest)
	}
}

// TestArchive: an image from a file of docker save, overridden, in a sandbox
// that keeps nothing.
func TestArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.tar")
	tag, err := name.NewTag("team/saved:2")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(path, tag, testImage(t, "saved")); err != nil {
		t.Fatal(err)
	}
	sb := create(t, "archive", sandbox.WithImage(path), sandbox.WithEntrypoint("sh", "-c"), sandbox.WithCmd("echo $0 $1", "a", "b"),
		sandbox.WithUser("root"), sandbox.WithWorkdir("/"), sandbox.WithSecurity(sandbox.SecurityRestricted))
	if got := shell(t, sb, "mount -t tmpfs none /mnt 2>/dev/null || echo refused; grep NoNewPrivs /proc/self/status"); got != "refused\nNoNewPrivs:\t1" {
		t.Errorf("a restricted sandbox says %q", got)
	}
	out, err := sb.ExecDefault(t.Context())
	if err != nil || out.Stdout() != "a b\n" {
		t.Errorf("the default command: %v, %v", out, err)
	}
	// There is more room than memory, and it is no memory.
	if got := shell(t, sb, `cat /etc/flavour; pwd; id -un; head -c 200000000 /dev/zero > /big; stat -c %s /big; df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2`); !strings.HasPrefix(got, "saved\n/\nroot\n200000000\n4") {
		t.Errorf("the guest says %q", got)
	}
}

// TestDirectory: a directory of the host is the root, and stays as it is.
func TestDirectory(t *testing.T) {
	dir := tree(t)
	sb := create(t, "directory", sandbox.WithImage(dir), sandbox.WithPatches(sandbox.PatchAppend("/etc/flavour", "patched\n")))
	got := shell(t, sb, `cat /etc/flavour; echo changed > /etc/flavour; rm /etc/passwd; echo new > /new; cat /etc/flavour /new; ls /etc/passwd 2>/dev/null; stat -c %u /bin`)
	if want := "tree\npatched\nchanged\nnew\n0"; got != want {
		t.Errorf("the guest says\n%s\nwant\n%s", got, want)
	}
	if b, err := os.ReadFile(dir + "/etc/flavour"); err != nil || string(b) != "tree\n" {
		t.Errorf("the directory was changed: %q, %v", b, err)
	}
	if _, err := os.Stat(dir + "/new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the guest made a file in the directory: %v", err)
	}
	if _, err := os.Stat(dir + "/etc/passwd"); err != nil {
		t.Error(err)
	}
}

// run runs a tool, which must be there where tests are required.
func run(t testing.TB, tool string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil && os.Getenv(kvmtest.RequireEnv) != "1" {
		t.Skipf("needs %s, see internal/ci/packages.sh", tool)
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", tool, args, err, out)
	}
	return string(out)
}

// TestDiskImages: disk images of each format are used in place, with and
// without partitions, and keep what the guest writes.
func TestDiskImages(t *testing.T) {
	dir := t.TempDir()
	raw := dir + "/disk.raw"
	run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree(t), raw, "128M")
	run(t, "qemu-img", "convert", "-O", "qcow2", raw, dir+"/disk.qcow2")
	run(t, "qemu-img", "convert", "-O", "vmdk", raw, dir+"/disk.vmdk")
	// A partition table with an empty partition and the root.
	table := make([]byte, 3<<20)
	for i, p := range []struct{ start, sectors uint32 }{{2048, 2048}, {4096, 128 << 11}} {
		e := table[446+16*i:]
		e[4] = 0x83
		for b := range 4 {
			e[8+b], e[12+b] = byte(p.start>>(8*b)), byte(p.sectors>>(8*b))
		}
	}
	table[510], table[511] = 0x55, 0xaa
	content, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/parts.img", append(table[:2<<20], content...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		file string
		opts []sandbox.Option
	}{
		{"disk.raw", []sandbox.Option{sandbox.WithFSType("ext4")}},
		{"disk.qcow2", nil},
		{"disk.vmdk", nil},
		{"parts.img", nil},
	} {
		t.Run(tt.file, func(t *testing.T) {
			path := dir + "/" + tt.file
			name := strings.ReplaceAll(tt.file, ".", "-")
			opts := append(tt.opts, sandbox.WithImage(path))
			sb := keep(t, name, opts...)
			got := shell(t, sb, `cat /etc/flavour; echo changed > /etc/flavour; df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2`)
			if !strings.HasPrefix(got, "tree\n1") {
				t.Errorf("the guest says %q", got)
			}
			_, err := sandbox.Create(t.Context(), name+"-2", append(opts, sandbox.WithHome(home))...)
			if wantErr(t, "a disk in use", err, sandbox.ErrInvalidConfig); err != nil && !strings.Contains(err.Error(), "in use") {
				t.Errorf("error is %v", err)
			}
			if err := sb.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			switch {
			case tt.file == "disk.raw":
				run(t, "e2fsck", "-fn", path)
			case tt.file != "parts.img":
				run(t, "qemu-img", "convert", "-O", "raw", path, dir+"/back.raw")
				run(t, "e2fsck", "-fn", dir+"/back.raw")
			}
			if tt.file != "disk.qcow2" {
				return
			}
			if sb, err = sandbox.Start(t.Context(), name, sandbox.WithHome(home)); err != nil {
				t.Fatal(err)
			}
			defer sb.Close()
			if got := shell(t, sb, "cat /etc/flavour"); got != "changed" {
				t.Errorf("after the start the guest says %q", got)
			}
		})
	}
	for what, opts := range map[string][]sandbox.Option{
		"WithPatches":      {sandbox.WithImage(raw), sandbox.WithPatches(sandbox.PatchMkdir("/x"))},
		"WithOCIUpperSize": {sandbox.WithImage(raw), sandbox.WithOCIUpperSize(1 << 30)},
		"WithFSType":       {sandbox.WithFSType("ext4")},
		"WithImage":        {sandbox.WithImage(dir + "/none.raw")},
	} {
		_, err := sandbox.Create(t.Context(), "bad", append(opts, sandbox.WithHome(home))...)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: error is %v", what, err)
		}
	}
}
