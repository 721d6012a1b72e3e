package layer

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/rootfs/erofs/erofstest"
)

// ociLayout writes uncompressed layers as an OCI layout with one image, "x".
func ociLayout(t testing.TB, dir string, layers [][]byte) {
	t.Helper()
	type descriptor struct {
		MediaType string            `json:"mediaType"`
		Digest    string            `json:"digest"`
		Size      int               `json:"size"`
		Notes     map[string]string `json:"annotations,omitempty"`
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(mediaType string, b []byte) descriptor {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		write("blobs/sha256/"+sum, b)
		return descriptor{MediaType: "application/vnd.oci.image." + mediaType, Digest: "sha256:" + sum, Size: len(b)}
	}
	object := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	var descriptors []descriptor
	var diffs []string
	for _, l := range layers {
		d := blob("layer.v1.tar", l)
		descriptors = append(descriptors, d)
		diffs = append(diffs, d.Digest)
	}
	config := blob("config.v1+json", object(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	}))
	manifest := blob("manifest.v1+json", object(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descriptors,
	}))
	manifest.Notes = map[string]string{"org.opencontainers.image.ref.name": "x"}
	write("index.json", object(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}}))
	write("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

// randomLayers makes layers that contradict themselves and one another, but not so
// often that nothing but refusals comes of them.
func randomLayers(rnd *rand.Rand) [][]entry {
	const parts = "abcd"
	dirs, files := []string{"", ""}, []string{"a"}
	pick := func(from []string) string { return from[rnd.IntN(len(from))] }
	path := func() string {
		p := pick(dirs) + string(parts[rnd.IntN(len(parts))])
		switch rnd.IntN(16) {
		case 0:
			p = "./" + p
		case 1:
			p = "/" + p
		case 2:
			p = "../" + p
		case 3:
			p = string(parts[rnd.IntN(len(parts))]) + "/" + p
		}
		return p
	}
	var layers [][]entry
	for l := range 1 + rnd.IntN(3) {
		var layer []entry
		for range 1 + rnd.IntN(12) {
			p := path()
			dirname, base := filepath.Split(p)
			var e entry
			switch n := rnd.IntN(24); {
			case n < 7:
				e = dir(p, 0o700+int64(rnd.IntN(64)))
				dirs = append(dirs, p+"/")
			case n < 12:
				e = file(p, fmt.Sprint(l, rnd.IntN(100)))
				files = append(files, p)
			case n < 13:
				e = symlink(p, []string{"", "/", "../", "../../"}[rnd.IntN(4)]+path())
				files = append(files, p)
			case n < 16:
				e = symlink(p, "/"+pick(dirs))
				dirs = append(dirs, p+"/")
			case n < 18:
				e = hard(p, pick(files))
			case n < 19:
				e = special(tar.TypeFifo, p, 0, 0)
			case l > 0 && n < 22:
				e = file(dirname+".wh."+base, "")
			case l > 0:
				e = file(pick(dirs)+".wh..wh..opq", "")
			default:
				e = file(p, "")
			}
			layer = append(layer, e)
		}
		layers = append(layers, layer)
	}
	return layers
}

// TestAgainstUmoci: random layers have the result that umoci gives them.
func TestAgainstUmoci(t *testing.T) {
	need(t, "umoci")
	count, refused := 200, 0
	for seed := range count {
		layers := randomLayers(rand.New(rand.NewPCG(uint64(seed), 77)))
		var tars [][]byte
		var in []Layer
		for _, l := range layers {
			b := pack(t, l...)
			tars = append(tars, b)
			in = append(in, plain(b))
		}
		dir := t.TempDir()
		ociLayout(t, dir, tars)
		theirOutput, theirErr := output("umoci", "unpack", "--image", dir+":x", filepath.Join(dir, "bundle"))
		f := tempImage(t)
		_, err := Convert(context.Background(), in, f, Options{})
		if (err != nil) != (theirErr != nil) {
			t.Errorf("seed %d: we say %v, umoci says %v %s\n%s", seed, err, theirErr, theirOutput, spell(layers))
			continue
		}
		if err != nil {
			refused++
			continue
		}
		got, err := erofstest.Describe(openImage(t, f))
		if err != nil {
			t.Fatal(err)
		}
		want, err := erofstest.DescribeHost(filepath.Join(dir, "bundle/rootfs"))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(shorter(want), shorter(got)); d != "" {
			t.Errorf("seed %d (-umoci +ours):\n%s\n%s", seed, d, spell(layers))
		}
	}
	t.Logf("%d of %d refused by both", refused, count)
}

// shorter drops the times, which umoci lets become those of the unpacking.
func shorter(all map[string]string) map[string]string {
	for name, line := range all {
		fields := strings.Fields(line)
		fields[2] = ""
		all[name] = strings.Join(fields, " ")
	}
	return all
}

func spell(layers [][]entry) string {
	var s strings.Builder
	for i, l := range layers {
		for _, e := range l {
			fmt.Fprintf(&s, "layer %d: %c %s %o %s\n", i, e.Typeflag, e.Name, e.Mode, e.Linkname)
		}
	}
	return s.String()
}
