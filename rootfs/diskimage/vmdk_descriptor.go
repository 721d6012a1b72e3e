package diskimage

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// descriptor is what the text of an image says.
type descriptor struct {
	createType string
	cidAt      int64 // of the digits of the content ID
	cidLen     int   // of which there may be fewer than eight
	extents    []extentLine
}

// extentLine describes an extent; one without a name is zeroes.
type extentLine struct {
	size, offset int64 // bytes
	name         string
}

// maxExtents bounds how many files are opened.
const maxExtents = 64

// parseDescriptor checks a descriptor: key=value lines, and one line for each extent.
func parseDescriptor(text []byte) (*descriptor, error) {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	if !bytes.HasPrefix(text, []byte("# Disk DescriptorFile")) {
		return nil, fmt.Errorf("%w: no vmdk descriptor", ErrFormat)
	}
	d := &descriptor{cidAt: -1}
	for at := 0; at < len(text); {
		line, _, _ := bytes.Cut(text[at:], []byte("\n"))
		if err := d.line(strings.TrimRight(string(line), "\r \t"), int64(at)); err != nil {
			return nil, err
		}
		at += len(line) + 1
	}
	if d.cidAt < 0 || d.createType == "" || len(d.extents) == 0 {
		return nil, fmt.Errorf("%w: descriptor lacks CID, createType or extents", ErrCorrupt)
	}
	return d, nil
}

func (d *descriptor) line(s string, at int64) error {
	if access, rest, ok := strings.Cut(s, " "); ok && (access == "RW" || access == "RDONLY" || access == "NOACCESS") {
		return d.extent(access, rest)
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok || strings.HasPrefix(s, "#") {
		return nil
	}
	value = strings.Trim(strings.TrimSpace(value), `"`)
	switch strings.TrimSpace(key) {
	case "CID":
		// QEMU writes no leading zeroes.
		if _, err := strconv.ParseUint(value, 16, 32); err != nil || len(value) > 8 || !strings.HasPrefix(s, "CID="+value) {
			return fmt.Errorf("%w: CID %q", ErrCorrupt, value)
		}
		d.cidAt, d.cidLen = at+int64(len("CID=")), len(value)
	case "parentCID":
		if !strings.EqualFold(value, "ffffffff") {
			return fmt.Errorf("%w: vmdk with a parent", ErrUnsupported)
		}
	case "createType":
		d.createType = value
	}
	return nil
}

// extent parses what follows the access in `RW 2048 FLAT "name" 0`.
func (d *descriptor) extent(access, s string) error {
	bad := func() error { return fmt.Errorf("%w: extent %s %s", ErrCorrupt, access, s) }
	if len(d.extents) == maxExtents {
		return fmt.Errorf("%w: over %d extents", ErrUnsupported, maxExtents)
	}
	if access != "RW" {
		return fmt.Errorf("%w: extent of access %s", ErrUnsupported, access)
	}
	count, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	sectors, err := strconv.ParseUint(count, 10, 50)
	if err != nil || sectors == 0 {
		return bad()
	}
	kind, rest, _ := strings.Cut(strings.TrimSpace(rest), " ")
	e := extentLine{size: int64(sectors) * 512}
	rest = strings.TrimSpace(rest)
	if rest != "" {
		if rest[0] != '"' {
			return bad()
		}
		name, after, ok := strings.Cut(rest[1:], `"`)
		if !ok || name == "" {
			return bad()
		}
		if e.name = name; strings.TrimSpace(after) != "" {
			offset, err := strconv.ParseUint(strings.TrimSpace(after), 10, 50)
			if err != nil {
				return bad()
			}
			e.offset = int64(offset) * 512
		}
	}
	switch {
	case kind == "ZERO":
		e.name = ""
	case kind == "FLAT" && e.name != "", kind == "SPARSE" && e.name != "":
	default:
		return fmt.Errorf("%w: extent of type %s", ErrUnsupported, kind)
	}
	d.extents = append(d.extents, e)
	return nil
}

// contentID gives the image another content ID before the first change, so that
// images made on top of it notice.
type contentID struct {
	f    *os.File
	at   int64
	n    int // digits
	done atomic.Bool
	mu   sync.Mutex
}

func (c *contentID) change() error {
	if c.done.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done.Load() {
		return nil
	}
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // ffffffff means none
	if _, err := c.f.WriteAt([]byte(hex.EncodeToString(id[:])[:c.n]), c.at); err != nil {
		return err
	}
	c.done.Store(true)
	return nil
}
