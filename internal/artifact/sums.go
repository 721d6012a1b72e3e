// Package artifact describes build products that are committed and embedded:
// what was built, from what, and how it is packed. What makes such products is
// in its subpackage build, so that programs which only embed them stay small.
package artifact

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// ErrFormat means that a SHA256SUMS file is malformed.
var ErrFormat = errors.New("artifact: malformed SHA256SUMS")

// Sums is the content of a SHA256SUMS file. Its plain lines are what sha256sum
// -c reads; the rest are comments to that tool.
type Sums struct {
	// Inputs is the digest of all that the product is made from, as far as it
	// must be compared: sources, module versions, flags. It does not depend on
	// the place of the checkout.
	Inputs [sha256.Size]byte
	// Tools maps a tool to the version that was used. It is recorded to be able
	// to rebuild the product bit for bit; another version does not make the
	// product stale.
	Tools map[string]string
	// Modules are the third-party modules whose code is in the product, sorted.
	Modules []Module
	// Contents are what is inside the packed files, before compression.
	Contents []Content
	// Files are the committed files.
	Files []File
}

// Module is one version of a Go module.
type Module struct {
	Path, Version string
	Sum           string // as in go.sum, "h1:…"
}

// Content is an unpacked product.
type Content struct {
	Name   string
	Size   int64
	Digest [sha256.Size]byte
}

// File is a committed file, by its name in the folder of SHA256SUMS.
type File struct {
	Name   string
	Digest [sha256.Size]byte
}

// Content returns the entry of that name.
func (s *Sums) Content(name string) (Content, error) {
	for _, c := range s.Contents {
		if c.Name == name {
			return c, nil
		}
	}
	return Content{}, fmt.Errorf("%w: no content %q", ErrFormat, name)
}

// Bytes renders the file. It is deterministic.
func (s *Sums) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# inputs %x\n", s.Inputs)
	tools := make([]string, 0, len(s.Tools))
	for name := range s.Tools {
		tools = append(tools, name)
	}
	sort.Strings(tools)
	for _, name := range tools {
		fmt.Fprintf(&b, "# tool %s %s\n", name, s.Tools[name])
	}
	for _, m := range s.Modules {
		fmt.Fprintf(&b, "# module %s %s %s\n", m.Path, m.Version, m.Sum)
	}
	for _, c := range s.Contents {
		fmt.Fprintf(&b, "# content %s %d %x\n", c.Name, c.Size, c.Digest)
	}
	for _, f := range s.Files {
		fmt.Fprintf(&b, "%x  %s\n", f.Digest, f.Name)
	}
	return b.Bytes()
}

// ParseSums is the inverse of [Sums.Bytes].
func ParseSums(b []byte) (*Sums, error) {
	s := &Sums{Tools: map[string]string{}}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		if err := s.parseLine(lines.Text()); err != nil {
			return nil, fmt.Errorf("%w: line %d: %v", ErrFormat, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFormat, err)
	}
	return s, nil
}

func (s *Sums) parseLine(line string) (err error) {
	f := strings.Fields(line)
	switch {
	case len(f) == 3 && f[0] == "#" && f[1] == "inputs":
		s.Inputs, err = parseDigest(f[2])
	case len(f) >= 4 && f[0] == "#" && f[1] == "tool":
		s.Tools[f[2]] = strings.Join(f[3:], " ")
	case len(f) == 5 && f[0] == "#" && f[1] == "module":
		s.Modules = append(s.Modules, Module{f[2], f[3], f[4]})
	case len(f) == 5 && f[0] == "#" && f[1] == "content":
		c := Content{Name: f[2]}
		if c.Size, err = strconv.ParseInt(f[3], 10, 64); err != nil {
			return err
		}
		c.Digest, err = parseDigest(f[4])
		s.Contents = append(s.Contents, c)
	case len(f) == 2 && f[0] != "#":
		file := File{Name: f[1]}
		file.Digest, err = parseDigest(f[0])
		s.Files = append(s.Files, file)
	default:
		err = fmt.Errorf("unknown entry %q", line)
	}
	return err
}

func parseDigest(s string) (d [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return d, err
	}
	if len(b) != len(d) {
		return d, fmt.Errorf("digest of %d bytes", len(b))
	}
	copy(d[:], b)
	return d, nil
}
