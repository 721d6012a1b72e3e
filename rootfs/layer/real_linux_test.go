package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	goerofs "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

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
	if err := unix.Setxattr(filepath.Join(upper, "opt/new/a"), "user.note", []byte("\x00hello\n"), 0); err != nil {
		t.Fatal(err)
	}
	var tars [][]byte
	var layers []Layer
	for i, d := range []string{lower, upper} {
		run(t, d, "tar", "--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "-cf", d+".tar", ".")
		b, err := os.ReadFile(d + ".tar")
		if err != nil {
			t.Fatal(err)
		}
		l := squeeze(t, []Compression{Zstd, None}[i], b)
		l.DiffID = fmt.Sprintf("sha256:%x", sha256.Sum256(b))
		tars, layers = append(tars, b), append(layers, l)
	}
	ociLayout(t, work, tars)
	run(t, "", "umoci", "unpack", "--image", work+":x", filepath.Join(work, "bundle"))

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

// TestFormats: the formats that GNU tar knows give the same image, sparse files and
// long names included.
func TestFormats(t *testing.T) {
	need(t, "tar")
	work := t.TempDir()
	src := filepath.Join(work, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, src, "sh", "-c", `set -e
		long=$(printf 'n%.0s' $(seq 180)); mkdir -p $long/$long; echo long > $long/$long/file; ln -s $long/$long link
		truncate -s 3M sparse; printf begin | dd of=sparse conv=notrunc status=none; printf end >> sparse
		ln sparse hard; mkfifo fifo; mknod null c 1 3; find . -exec touch -h -d @1000000000 {} +`)
	var first map[string]string
	for _, args := range [][]string{
		{"--format=gnu"}, {"--format=gnu", "--sparse"}, {"--format=oldgnu", "--sparse"}, {"--format=pax"},
		{"--format=pax", "--sparse", "--sparse-version=0.0"}, {"--format=pax", "--sparse", "--sparse-version=0.1"},
		{"--format=pax", "--sparse", "--sparse-version=1.0"},
	} {
		run(t, src, "tar", append(args, "--sort=name", "-cf", "../x.tar", ".")...)
		b, err := os.ReadFile(filepath.Join(work, "x.tar"))
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := convert(t, Options{}, b)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if first == nil {
			first = got
			if want, err := erofstest.DescribeHost(src); err != nil || !cmp.Equal(want, got) {
				t.Errorf("%v: %v (-want +got):\n%s", args, err, cmp.Diff(want, got))
			}
		} else if d := cmp.Diff(first, got); d != "" {
			t.Errorf("%v: (-gnu +this):\n%s", args, d)
		}
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
