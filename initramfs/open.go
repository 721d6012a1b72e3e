package initramfs

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/hex"
	"os"
	"slices"

	"github.com/hutchvm/hutch/internal/artifact"
	"github.com/hutchvm/hutch/internal/cachefile"
)

//go:embed agent.zst
var packedAgent []byte

//go:embed SHA256SUMS
var sums []byte

// Notice is the licence texts of the code that the agent is built from.
//
//go:embed NOTICE
var Notice string

// Names of the contents in SHA256SUMS.
const (
	agentContent   = "agent"
	archiveContent = "initramfs.cpio"
)

// Archive is the built-in archive as a file.
type Archive struct {
	// File can be read from any offset, or mapped privately, by any number of
	// users at once. It must not be changed.
	File *os.File
	// Size of the archive in bytes.
	Size int64
}

// Close closes the file. Calling it again does no harm.
func (a *Archive) Close() error {
	if a.File == nil {
		return nil
	}
	f := a.File
	a.File = nil
	return f.Close()
}

// Open returns the built-in archive, uncompressed, from the directory cacheDir.
// It is made there when it is not there yet, which takes some tens of
// milliseconds; otherwise opening it costs two system calls. Any number of
// processes may share cacheDir, which must be writable only by those whom the
// caller trusts.
func Open(cacheDir string) (*Archive, error) {
	s, err := artifact.ParseSums(sums)
	if err != nil {
		return nil, &Error{"open", err}
	}
	want, err := s.Content(archiveContent)
	if err != nil {
		return nil, &Error{"open", err}
	}
	f, err := cachefile.Get(cacheDir, archiveContent, want.Digest, want.Size, fill)
	if err != nil {
		return nil, &Error{"open", err}
	}
	return &Archive{File: f, Size: want.Size}, nil
}

// Digest is the SHA-256 of the built-in archive, in hexadecimal. It identifies
// the agent, for example in the key of a snapshot cache.
func Digest() (string, error) {
	s, err := artifact.ParseSums(sums)
	if err != nil {
		return "", &Error{"digest", err}
	}
	c, err := s.Content(archiveContent)
	if err != nil {
		return "", &Error{"digest", err}
	}
	return hex.EncodeToString(c.Digest[:]), nil
}

func fill(w *os.File) error {
	agent, err := Agent()
	if err != nil {
		return err
	}
	// Records are many small writes.
	buf := bufio.NewWriterSize(w, 1<<20)
	if err := writeArchive(buf, agent, nil); err != nil {
		return err
	}
	return buf.Flush()
}

// Agent returns the built-in agent, the executable that becomes /init. The
// slice is the caller's.
func Agent() ([]byte, error) {
	s, err := artifact.ParseSums(sums)
	if err != nil {
		return nil, &Error{"open", err}
	}
	c, err := s.Content(agentContent)
	if err != nil {
		return nil, &Error{"open", err}
	}
	var b bytes.Buffer
	b.Grow(int(c.Size))
	if err := artifact.Unpack(&b, packedAgent, c.Size); err != nil {
		return nil, &Error{"open", err}
	}
	return slices.Clip(b.Bytes()), nil
}
