package layer

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	goerofs "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

// debs returns Debian packages as files, downloaded once.
func debs(t testing.TB, names ...string) []string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "hutch-test", "debs")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range names {
		found, _ := filepath.Glob(filepath.Join(cache, name+"_*.deb"))
		if len(found) == 0 {
			run(t, cache, "apt-get", "-o", "APT::Sandbox::User=root", "download", name)
			found, _ = filepath.Glob(filepath.Join(cache, name+"_*.deb"))
		}
		files = append(files, found[0])
	}
	return files
}

// layout makes an OCI layout with the tool whose unpacking is compared with ours, and
// returns it with the layers of its image.
func layout(t testing.TB, tars ...string) (dir string, layers []Layer) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "oci")
	run(t, "", "umoci", "init", "--layout", dir)
	run(t, "", "umoci", "new", "--image", dir+":x")
	for _, tar := range tars {
		run(t, "", "umoci", "raw", "add-layer", "--image", dir+":x", tar)
	}
	return dir, layersOf(t, dir)
}

func layersOf(t testing.TB, dir string) (layers []Layer) {
	t.Helper()
	type descriptor struct {
		Digest, MediaType string
		Size              int64
	}
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	blob := func(digest string) string {
		return filepath.Join(dir, "blobs", strings.Replace(digest, ":", "/", 1))
	}
	read := func(name string, v any) {
		b, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read(filepath.Join(dir, "index.json"), &index)
	read(blob(index.Manifests[0].Digest), &manifest)
	read(blob(manifest.Config.Digest), &config)
	for i, d := range manifest.Layers {
		l := Layer{Size: d.Size, Name: d.Digest, DiffID: config.RootFS.DiffIDs[i]}
		if strings.HasSuffix(d.MediaType, "+gzip") {
			l.Compression = Gzip
		}
		l.Open = func(context.Context) (io.ReadCloser, error) { return os.Open(blob(d.Digest)) }
		layers = append(layers, l)
	}
	return layers
}

// upperScript makes what an upper layer has.
const upperScript = `set -e
mkdir -p usr/share/zoneinfo/Etc usr/lib/git-core opt/new etc dev var
ln -s ../usr/share/zoneinfo var/zones
touch usr/share/zoneinfo/.wh.Africa
touch usr/share/zoneinfo/Etc/.wh..wh..opq
echo only > usr/share/zoneinfo/Etc/Mine
rm -f usr/lib/git-core/git-add
echo replaced > usr/lib/git-core/git-add
touch usr/bin/.wh.git 2>/dev/null || { mkdir -p usr/bin; touch usr/bin/.wh.git; }
printf 'x' > opt/new/a; ln opt/new/a opt/new/b; ln -s /opt/new/a opt/new/c
mknod dev/null c 1 3; mknod dev/vda b 254 0; mkfifo dev/fifo; chmod 1777 opt
truncate -s 64M opt/new/sparse; printf end >> opt/new/sparse
setfattr -n user.note -v "hello" opt/new/a 2>/dev/null || true
chown 1234567:7654321 opt/new/a; chmod 4711 opt/new/a
touch -d @0.123456789 opt/new/b
`

// TestRealImage compares an image of Debian packages with what umoci makes of the
// same layers: git and perl have hard links, ping a capability, tzdata links of all
// kinds.
func TestRealImage(t *testing.T) {
	need(t, "umoci", "dpkg-deb", "tar", "fsck.erofs", "setcap")
	work := t.TempDir()
	lower, upper := filepath.Join(work, "lower"), filepath.Join(work, "upper")
	for _, d := range []string{lower, upper} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, deb := range debs(t, "git", "perl", "perl-base", "perl-modules-5.36", "iputils-ping", "tzdata") {
		run(t, "", "dpkg-deb", "-x", deb, lower)
	}
	run(t, lower, "setcap", "cap_net_raw+ep", "bin/ping")
	run(t, upper, "sh", "-c", upperScript)
	var tars []string
	for _, d := range []string{lower, upper} {
		tars = append(tars, d+".tar")
		run(t, d, "tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "-cf", d+".tar", ".")
	}
	oci, layers := layout(t, tars...)
	run(t, "", "umoci", "unpack", "--image", oci+":x", filepath.Join(work, "bundle"))

	f := tempImage(t)
	stats, err := Convert(context.Background(), layers, f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", stats)
	got, err := erofstest.Describe(openImage(t, f))
	if err != nil {
		t.Fatal(err)
	}
	want, err := erofstest.DescribeHost(filepath.Join(work, "bundle", "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("against umoci (-umoci +ours):\n%s", d)
	}
	var links, caps int
	for _, line := range got {
		if strings.Contains(line, "same as") {
			links++
		}
		if strings.Contains(line, "security.capability=") {
			caps++
		}
	}
	if len(got) < 4000 || links < 3 || caps != 1 {
		t.Errorf("%d files, %d more names of one, %d capabilities", len(got), links, caps)
	}
	if st, err := os.Stat(f.Name()); err != nil || st.Sys().(*syscall.Stat_t).Blocks*512 > stats.ImageBytes-stats.HoleBytes+1<<20 {
		t.Errorf("image takes %d bytes on disk, is %+v (%v)", st.Sys().(*syscall.Stat_t).Blocks*512, stats, err)
	}
	fsck(t, f.Name())
	if _, err := goerofsTree(f); err != nil {
		t.Errorf("go-erofs: %v", err)
	}
}

// goerofsTree walks the image with another reader.
func goerofsTree(f *os.File) (files int, err error) {
	im, err := goerofs.Open(f)
	if err != nil {
		return 0, err
	}
	err = fs.WalkDir(im, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		r, err := im.Open(name)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
		return err
	})
	return files, err
}
