package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// debianLayers are the packages of an image of about 300 MB.
var debianLayers = [][]string{
	{"libc6", "coreutils", "perl-base", "libperl5.36", "perl-modules-5.36", "libicu72"},
	{"git", "gcc-12", "g++-12", "vim-runtime"},
}

// debianImage makes an image of Debian packages, which are downloaded once.
func debianImage(t testing.TB) (img v1.Image, size int) {
	t.Helper()
	for _, name := range []string{"apt-get", "dpkg-deb", "tar"} {
		if tool(t, name) == "" {
			t.Skipf("no %s", name)
		}
	}
	cache := filepath.Join(userCache, "hutch-test", "debs")
	run := func(dir, name string, args ...string) []byte {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Stderr = dir, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		return out
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	img = empty.Image
	for _, packages := range debianLayers {
		dir := t.TempDir()
		for _, p := range packages {
			found, _ := filepath.Glob(filepath.Join(cache, p+"_*.deb"))
			if len(found) == 0 {
				run(cache, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", p)
				found, _ = filepath.Glob(filepath.Join(cache, p+"_*.deb"))
			}
			run("", "dpkg-deb", "-x", found[0], dir)
		}
		plain := run(dir, "tar", "--sort=name", "--numeric-owner", "-cf", "-", ".")
		size += len(plain)
		img = appendLayer(t, img, layerOf(t, plain, "gzip", types.DockerLayer))
		os.RemoveAll(dir)
	}
	return withConfig(t, img, v1.Config{Cmd: []string{"/bin/bash"}}), size
}

// BenchmarkPull is pull and conversion of an image that nothing is known of, in
// a process of its own, against skopeo copy and umoci unpack, from one registry on loopback.
//
//	go test ./rootfs/oci -run '^$' -bench Pull
func BenchmarkPull(b *testing.B) {
	skopeo, umoci := tool(b, "skopeo"), tool(b, "umoci")
	if skopeo == "" || umoci == "" || os.Getuid() != 0 {
		b.Skip("needs skopeo, umoci and root")
	}
	img, size := debianImage(b)
	reg := newRegistry(b)
	ref := reg.push(b, "debian:12", img)
	timed := func(cmds ...*exec.Cmd) (d time.Duration, peak int64) {
		begin := time.Now()
		for _, c := range cmds {
			out, err := c.CombinedOutput()
			if err != nil {
				b.Fatalf("%s: %v\n%s", c, err, out)
			}
			fmt.Sscanf(string(out), "peak %d", &peak) // only our own child says so
		}
		return time.Since(begin), peak
	}
	var ours, theirs []time.Duration
	var rss int64
	for b.Loop() {
		home, other := b.TempDir(), b.TempDir()
		cmd := childCommand(b, home, ref)
		cmd.Env = append(cmd.Env, realVariable+"=1")
		d, m := timed(cmd)
		ours, rss = append(ours, d), max(rss, m)
		d, _ = timed(exec.Command(skopeo, "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+ref, "oci:"+other+"/oci:x"),
			exec.Command(umoci, "unpack", "--image", other+"/oci:x", other+"/bundle"))
		theirs = append(theirs, d)
		os.RemoveAll(home)
		os.RemoveAll(other)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	o, th := ours[len(ours)/2], theirs[len(theirs)/2]
	b.ReportMetric(float64(size)/1e6, "image-MB")
	b.ReportMetric(o.Seconds(), "hutch-s")
	b.ReportMetric(th.Seconds(), "skopeo+umoci-s")
	b.ReportMetric(o.Seconds()/th.Seconds(), "ratio")
	b.ReportMetric(float64(rss)/1024, "peak-MiB")
}

// BenchmarkCached is everything that a create does with an image that is in the
// store: find it, and open its root.
func BenchmarkCached(b *testing.B) {
	reg := newRegistry(b)
	s := newStore(b, b.TempDir())
	ref := ""
	for i := range 20 { // others must not matter
		ref = reg.push(b, fmt.Sprintf("app%d", i), imageOf(b, randomTar(b, 1000)))
		if _, err := s.Pull(b.Context(), ref, PullOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	home := strings.TrimSuffix(s.dir, "/"+storeDir)
	for b.Loop() {
		s, err := Open(home)
		if err != nil {
			b.Fatal(err)
		}
		img, err := s.Pull(b.Context(), ref, PullOptions{})
		if err != nil {
			b.Fatal(err)
		}
		l, err := img.Acquire()
		if err != nil {
			b.Fatal(err)
		}
		l.Close()
	}
}
