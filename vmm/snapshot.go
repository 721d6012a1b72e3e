package vmm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

// A snapshot is one file: a header, the state of CPUs and devices as JSON, the
// list of the pieces of memory that are not zero, and from a page boundary on
// these pieces one after the other, so that they can be mapped as they lie.
//
// Nothing in a file is trusted. A machine of a snapshot that was tampered with
// has at worst a guest that does not work.
const (
	// SnapshotVersion is the version of the format. It changes with anything
	// that makes an older snapshot mean something else, here or in a device.
	SnapshotVersion = 1

	snapshotMagic  = "HUTCHSNP"
	snapshotHeader = 64 // magic, version, length of the state, number of pieces, digest
	digestOffset   = 32
	pieceSize      = 16 // address and length

	// maxState bounds the state: 64 CPUs with 30 KiB each, and devices.
	maxState  = 2 << 20
	maxPieces = 8192
	// pieceGap is how many bytes of zeroes may lie within a piece: each piece is a
	// mapping, which is dearer than some pages of zeroes in the file.
	pieceGap = 64 << 10
)

// Snapshot is an opened snapshot file that has been checked.
type Snapshot struct {
	file   *os.File
	state  machineState
	pieces []guestmem.FilePiece
}

// CPUs is the number of CPUs of the machine that was saved.
func (s *Snapshot) CPUs() int { return len(s.state.VCPUs) }

// Memory is the size of its memory in bytes.
func (s *Snapshot) Memory() uint64 { return s.state.Memory }

// OpenSnapshot reads the head of a snapshot file and checks it; what is wrong
// with it is an error that matches ErrSnapshot. Memory is not read: machines map
// it from f, which must neither change nor shrink while one of them lives. f
// stays the caller's, who may close it once New has returned.
func OpenSnapshot(f *os.File) (*Snapshot, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, opErr("open snapshot", err)
	}
	s, err := parseSnapshot(f, st.Size())
	if err != nil {
		return nil, opErr("open snapshot", err)
	}
	s.file = f
	return s, nil
}

// damaged is the error for a snapshot that cannot be what Snapshot wrote.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSnapshot, fmt.Sprintf(format, args...))
}

func parseSnapshot(r io.ReaderAt, size int64) (*Snapshot, error) {
	var head [snapshotHeader]byte
	if n, err := r.ReadAt(head[:], 0); n < len(head) {
		return nil, damaged("truncated header: %v", err)
	}
	le := binary.LittleEndian
	stateLen, count := le.Uint32(head[12:]), le.Uint32(head[16:])
	switch {
	case string(head[:8]) != snapshotMagic:
		return nil, damaged("this is no snapshot")
	case le.Uint32(head[8:]) != SnapshotVersion:
		return nil, damaged("format version %d, not %d", le.Uint32(head[8:]), SnapshotVersion)
	case stateLen > maxState:
		return nil, damaged("%d bytes of state", stateLen)
	case count > maxPieces:
		return nil, damaged("%d pieces of memory", count)
	}
	body := make([]byte, int(stateLen)+int(count)*pieceSize)
	if n, err := r.ReadAt(body, snapshotHeader); n < len(body) {
		return nil, damaged("truncated state: %v", err)
	}
	if snapshotDigest(head[:digestOffset], body) != [sha256.Size]byte(head[digestOffset:]) {
		return nil, damaged("the state does not match its digest")
	}
	s := new(Snapshot)
	if err := json.Unmarshal(body[:stateLen], &s.state); err != nil {
		return nil, damaged("state: %v", err)
	}
	if err := s.state.check(); err != nil {
		return nil, err
	}
	if err := s.readPieces(body[stateLen:], dataStart(len(body)), size); err != nil {
		return nil, err
	}
	return s, nil
}

// snapshotDigest covers everything but memory.
func snapshotDigest(head, body []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(head)
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// dataStart is where memory begins in a file with such a body.
func dataStart(body int) int64 {
	return (snapshotHeader + int64(body) + guestPage - 1) &^ (guestPage - 1)
}

const guestPage = 4096

// readPieces takes the list of pieces, which lie in the file from at on and must be ascending, apart, inside the
// machine's memory, and exactly as long together as the file has room for.
func (s *Snapshot) readPieces(list []byte, at, size int64) error {
	ram, next := boot.RAM(s.state.Memory), uint64(0)
	for ; len(list) > 0; list = list[pieceSize:] {
		p := guestmem.FilePiece{Offset: at}
		p.GPA, p.Size = binary.LittleEndian.Uint64(list), binary.LittleEndian.Uint64(list[8:])
		if p.Size == 0 || p.GPA%guestPage != 0 || p.Size%guestPage != 0 || p.GPA < next || !insideOne(ram, p.Range) {
			return damaged("piece of memory [%#x,+%#x)", p.GPA, p.Size)
		}
		s.pieces = append(s.pieces, p)
		next, at = p.End(), at+int64(p.Size)
	}
	if at != size {
		return damaged("%d bytes, not %d", size, at)
	}
	return nil
}

// insideOne reports whether one of ram holds all of r.
func insideOne(ram []guestmem.Range, r guestmem.Range) bool {
	for _, m := range ram {
		if r.GPA >= m.GPA && r.GPA-m.GPA < m.Size && r.Size <= m.Size-(r.GPA-m.GPA) {
			return true
		}
	}
	return false
}

// Snapshot writes the state of a paused machine and its memory to f, which must
// be empty. Pages of zeroes are left out. The machine stays paused and can go on.
// Whatever f holds after an error is of no use.
func (m *Machine) Snapshot(f *os.File) error { return opErr("snapshot", m.snapshot(f)) }

func (m *Machine) snapshot(f *os.File) error {
	m.mu.Lock()
	state := m.state
	m.mu.Unlock()
	if state != Paused {
		return fmt.Errorf("%w: it is %v", ErrState, state)
	}
	saved, err := m.save()
	if err != nil {
		return err
	}
	return m.write(f, saved)
}

// write writes a snapshot of that state and of the memory as it is.
func (m *Machine) write(f *os.File, saved *machineState) error {
	pieces, err := m.pieces()
	if err != nil {
		return err
	}
	body, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if len(body) > maxState || len(pieces) > maxPieces {
		return fmt.Errorf("%d bytes of state and %d pieces of memory are too many", len(body), len(pieces))
	}
	head := make([]byte, 0, snapshotHeader)
	le := binary.LittleEndian
	head = le.AppendUint32(append(head, snapshotMagic...), SnapshotVersion)
	head = le.AppendUint32(le.AppendUint32(head, uint32(len(body))), uint32(len(pieces)))
	head = append(head, make([]byte, digestOffset-len(head))...)
	for _, p := range pieces {
		body = le.AppendUint64(le.AppendUint64(body, p.GPA), p.Size)
	}
	sum := snapshotDigest(head, body)
	if _, err := f.Write(append(append(head, sum[:]...), body...)); err != nil {
		return err
	}
	at := dataStart(len(body))
	for _, p := range pieces {
		b, err := m.mem.Slice(p.GPA, p.Size)
		if err != nil {
			return err
		}
		if err := writeMemory(f, b, at); err != nil {
			return err
		}
		at += int64(p.Size)
	}
	return f.Truncate(at) // the last page may have been a hole
}

var zeroPage [guestPage]byte

// pieces finds the memory that is not zero.
func (m *Machine) pieces() ([]guestmem.Range, error) {
	gap := uint64(pieceGap)
	for {
		pieces, err := m.piecesApart(gap)
		if !errors.Is(err, errManyPieces) {
			return pieces, err
		}
		gap *= 4
	}
}

var errManyPieces = errors.New("too many pieces of memory")

// piecesApart merges pieces with less than gap between them.
func (m *Machine) piecesApart(gap uint64) ([]guestmem.Range, error) {
	var pieces []guestmem.Range
	ram := boot.RAM(m.mem.Size())
	err := m.mem.Touched(func(run guestmem.Range) error {
		b, err := m.mem.Slice(run.GPA, run.Size)
		if err != nil {
			return err
		}
		for off := uint64(0); off < run.Size; off += guestPage {
			if bytes.Equal(b[off:off+guestPage], zeroPage[:]) {
				continue
			}
			page := guestmem.Range{GPA: run.GPA + off, Size: guestPage}
			if last := len(pieces) - 1; last >= 0 && page.GPA-pieces[last].End() < gap {
				merged := guestmem.Range{GPA: pieces[last].GPA, Size: page.End() - pieces[last].GPA}
				if insideOne(ram, merged) {
					pieces[last] = merged
					continue
				}
			}
			if len(pieces) == maxPieces {
				return errManyPieces
			}
			pieces = append(pieces, page)
		}
		return nil
	})
	return pieces, err
}

// writeMemory writes b to f at a place. Pages of zeroes stay holes.
func writeMemory(f *os.File, b []byte, at int64) error {
	zero := func(off int) bool { return bytes.Equal(b[off:off+guestPage], zeroPage[:]) }
	for off := 0; off < len(b); off += guestPage {
		if zero(off) {
			continue
		}
		end := off + guestPage
		for end < len(b) && !zero(end) {
			end += guestPage
		}
		if _, err := f.WriteAt(b[off:end], at+int64(off)); err != nil {
			return err
		}
		off = end
	}
	return nil
}
