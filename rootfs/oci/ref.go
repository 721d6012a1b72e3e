package oci

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// reference is a parsed image reference.
type reference struct {
	name   name.Reference // nil for a digest alone
	full   string         // canonical: registry/repository:tag or registry/repository@digest
	short  string         // what people write: default registry and tag directory left out
	digest string         // "sha256:…" when the reference pins one
}

// maxReference is far above what registries allow (255 bytes of repository,
// 128 of tag).
const maxReference = 1024

// parseRef parses a reference as Docker does: registry, repository, tag and
// digest with the usual defaults; or a digest alone, "sha256:…".
func parseRef(s string, insecure bool) (*reference, error) {
	if s == "" || len(s) > maxReference {
		return nil, fail(ErrInvalidReference, "%d bytes long, want 1 to %d", len(s), maxReference)
	}
	if h, err := v1.NewHash(s); err == nil {
		if h.Algorithm != "sha256" {
			return nil, fail(ErrInvalidReference, "%s digests are not supported, only sha256", h.Algorithm)
		}
		return &reference{full: s, short: s, digest: s}, nil
	}
	if strings.HasPrefix(s, "sha256:") {
		return nil, fail(ErrInvalidReference, "%q: want 64 lower-case hexadecimal digits after sha256:", s)
	}
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	n, err := name.ParseReference(s, opts...)
	if err != nil {
		return nil, fail(ErrInvalidReference, "%q: want [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@sha256:…, in lower case", s)
	}
	r := &reference{name: n, full: n.Name()}
	if d, ok := n.(name.Digest); ok {
		if h, err := v1.NewHash(d.DigestStr()); err != nil || h.Algorithm != "sha256" {
			return nil, fail(ErrInvalidReference, "%q: not a sha256 digest", s)
		}
		r.digest = d.DigestStr()
	}
	r.short = shorten(r.full)
	return r, nil
}

// shorten leaves out what the parser puts in by default.
func shorten(full string) string {
	rest, ok := strings.CutPrefix(full, name.DefaultRegistry+"/")
	if !ok {
		return full
	}
	short := rest
	if r, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(r, "/") {
		short = r
	}
	if n, err := name.ParseReference(short); err != nil || n.Name() != full {
		return full // it would mean something else
	}
	return short
}

var hexDigits = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

// isShortDigest tells whether s can be the beginning of a digest, as listings
// print it. It can be a name as well, which goes first.
func isShortDigest(s string) bool { return hexDigits.MatchString(s) }

func checkDigest(d string) error {
	h, ok := strings.CutPrefix(d, "sha256:")
	if !ok {
		return fail(ErrInvalidImage, "%q is not a sha256 digest", clean(d))
	}
	return checkHex(h)
}

func checkHex(h string) error {
	if len(h) != 64 || !isShortDigest(h) {
		return fail(ErrInvalidImage, "%q is not a sha256 digest", clean(h))
	}
	return nil
}

// clean makes text that a registry or an archive supplied fit to be printed:
// short, and without control characters that a terminal would follow.
func clean(s string) string {
	const longest = 200
	cut := false
	if len(s) > longest {
		s, cut = s[:longest], true
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(s, "?"))
	if cut {
		s += "…"
	}
	return s
}
