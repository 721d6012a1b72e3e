package prep

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBackports(t *testing.T) {
	const stanza = `Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN KEY-----
 .
 abc

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
`
	const wantStanza = `Types: deb
URIs: http://mirror.example/debian
Suites: bookworm-backports
Components: main
Signed-By:
 -----BEGIN KEY-----
 .
 abc
`
	type result struct {
		Have  bool
		Entry string
	}
	for name, c := range map[string]struct {
		derive func(text, codename string) (bool, string)
		text   string
		want   result
	}{
		"stanza":             {backportsStanza, stanza, result{false, wantStanza}},
		"stanza, disabled":   {backportsStanza, "Enabled: no\nTypes: deb\nURIs: u\nSuites: bookworm\n", result{}},
		"stanza, there":      {backportsStanza, stanza + "\nTypes: deb\nURIs: u\nSuites: bookworm-backports\n", result{true, ""}},
		"stanza, other":      {backportsStanza, "Types: deb\nURIs: u\nSuites: trixie\n", result{}},
		"stanza, garbage":    {backportsStanza, " x\n:\n\n\n\x00", result{}},
		"line":               {backportsLine, "# x\ndeb-src http://m bookworm main\ndeb http://m bookworm main contrib # y\n", result{false, "deb http://m bookworm-backports main contrib\n"}},
		"line with options":  {backportsLine, "deb [ arch=amd64 signed-by=/k ] http://m bookworm main\n", result{false, "deb [ arch=amd64 signed-by=/k ] http://m bookworm-backports main\n"}},
		"line, there":        {backportsLine, "deb http://m bookworm main\ndeb http://m bookworm-backports main\n", result{true, ""}},
		"line, other":        {backportsLine, "deb http://m trixie main\n", result{}},
		"line, cut":          {backportsLine, "deb\ndeb [\ndeb http://m\n", result{}},
		"line, empty option": {backportsLine, "deb [] http://m bookworm main\n", result{false, "deb [] http://m bookworm-backports main\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			have, entry := c.derive(c.text, "bookworm")
			if diff := cmp.Diff(c.want, result{have, entry}); diff != "" {
				t.Errorf("backports (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOSRelease(t *testing.T) {
	id, codename := osRelease("PRETTY_NAME=\"Debian\"\nVERSION_CODENAME=bookworm\nID='debian'\n")
	if id != "debian" || codename != "bookworm" {
		t.Errorf("got %q, %q", id, codename)
	}
}

func TestCandidateMajor(t *testing.T) {
	for policy, want := range map[string]int{
		"p:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7+deb12u18\n  Version table:\n": 7,
		"p:\n  Candidate: 10.0.2-1\n":   10,
		"p:\n  Candidate: (none)\n":     0,
		"N: Unable to locate package p": 0,
	} {
		if got := candidateMajor(policy); got != want {
			t.Errorf("candidate of %q is %d, want %d", policy, got, want)
		}
	}
}

func TestKernelDependency(t *testing.T) {
	for show, want := range map[string]string{
		"Package: linux-image-amd64\nDepends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)\n":       "linux-image-6.1.0-56-amd64",
		"Depends: linux-base, linux-image-6.12.95+deb13-amd64 (= 6.12.95-1)\n":                  "linux-image-6.12.95+deb13-amd64",
		"Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n":                             "",
		"Depends: linux-image-6.1.0-56-amd64-evil;rm\nRecommends: linux-image-6.1.0-56-amd64\n": "",
		"Package: x\nDescription: Depends: linux-image-6.1.0-56-amd64\n":                        "",
	} {
		got, err := kernelDependency(show)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("kernel of %q is %q, %v; want %q", show, got, err, want)
		}
	}
}
