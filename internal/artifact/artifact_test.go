package artifact

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSums(t *testing.T) {
	want := &Sums{
		Inputs:   sha256.Sum256([]byte("in")),
		Tools:    map[string]string{"go": "go1.26.8", "mkfs.erofs": "1.5 (debian)"},
		Modules:  []Module{{"example.org/a", "v1.2.3", "h1:abc="}},
		Contents: []Content{{"thing", 42, sha256.Sum256([]byte("c"))}},
		Files:    []File{{"thing.zst", sha256.Sum256([]byte("f"))}},
	}
	got, err := ParseSums(want.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("rendering is not stable")
	}
	if _, err := got.Content("other"); !errors.Is(err, ErrFormat) {
		t.Errorf("missing content: %v", err)
	}
}

func TestParseSumsErrors(t *testing.T) {
	for _, s := range []string{"# inputs 00", "# inputs zz", "x", "# content a b c", "00  file", "# content a 1 00", "\n"} {
		if _, err := ParseSums([]byte(s)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestPack(t *testing.T) {
	data := bytes.Repeat([]byte("some data that repeats "), 9999)
	packed, err := Pack(data)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Pack(data)
	if !bytes.Equal(packed, again) {
		t.Error("packing is not deterministic")
	}
	size := int64(len(data))
	var out bytes.Buffer
	if err := Unpack(&out, packed, size); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Fatalf("unpacked %d bytes, %v", out.Len(), err)
	}
	for name, tc := range map[string]struct {
		packed []byte
		size   int64
	}{
		"more than said": {packed, size - 1},
		"less than said": {packed, size + 1},
		"cut":            {packed[:len(packed)-5], size},
		"garbage":        {[]byte("garbage"), size},
		"nothing":        {nil, size},
	} {
		out.Reset()
		if err := Unpack(&out, tc.packed, tc.size); err == nil {
			t.Errorf("%s: no error", name)
		}
		if int64(out.Len()) > tc.size {
			t.Errorf("%s: %d bytes written", name, out.Len())
		}
	}
}
