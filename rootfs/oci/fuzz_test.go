package oci

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// FuzzDocuments parses everything that a registry sends as JSON.
func FuzzDocuments(f *testing.F) {
	f.Add(manifestWith(func(*v1.Manifest) {}), "application/vnd.oci.image.manifest.v1+json")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aa","platform":{"os":"linux","architecture":"amd64"}}]}`), "application/vnd.oci.image.index.v1+json")
	f.Add([]byte(`{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00Z","config":{"Env":["A=1"],"Cmd":"x","Entrypoint":["a"],"Volumes":{"/v":{}}},"rootfs":{"diff_ids":["sha256:00"]}}`), "")
	f.Fuzz(func(t *testing.T, b []byte, mediaType string) {
		kindOf(b, mediaType)
		if m, err := parseManifest(b); err == nil {
			for _, d := range append(m.Layers, m.Config) {
				if checkDigest(d.Digest.String()) != nil || d.Size < 0 || d.Size > MaxLayer {
					t.Errorf("accepted %+v", d)
				}
			}
		}
		if id, err := choose(b); err == nil && checkDigest(id) != nil {
			t.Errorf("chose %q", id)
		}
		if c, err := parseConfig(b); err == nil {
			c.config()
			c.created()
		}
	})
}

// FuzzReference parses references; what is accepted is found again by its short form.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"debian", "debian:12", "a/b:c", "registry.test:5000/a/b@sha256:" + "00", "localhost/x", "library/x/y", "UPPER"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRef(s, false)
		if err != nil {
			return
		}
		again, err := parseRef(r.short, false)
		if err != nil || again.full != r.full || again.short != r.short {
			t.Errorf("%q → %q → %+v, %v", s, r.short, again, err)
		}
	})
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"debian":                    "debian:latest",
		"library/debian:12":         "debian:12",
		"someone/thing":             "someone/thing:latest",
		"registry.test/library/x:1": "registry.test/library/x:1",
		"registry.test:5000/a/b":    "registry.test:5000/a/b:latest",
		"localhost:5000/x":          "localhost:5000/x:latest",
		"library/a/b":               "library/a/b:latest",
	} {
		r, err := parseRef(in, false)
		if err != nil || r.short != want {
			t.Errorf("%s: %+v, %v; want %s", in, r, err, want)
		}
	}
}
