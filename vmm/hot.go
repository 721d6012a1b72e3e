package vmm

import (
	"slices"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

const (
	// hotSize is the unit in which memory of a snapshot is copied: what the host
	// can back with one huge page.
	hotSize = 2 << 20
	// MaxHot bounds them.
	MaxHot = 32
)

// Hot tells which parts of its snapshot's memory the guest has mostly written
// to by now: the addresses of such 2 MiB, for [Config.Hot] of later machines of
// the same snapshot. It may be called while the guest runs.
func (m *Machine) Hot() ([]uint64, error) {
	var hot []uint64
	for _, gpa := range m.hotCandidates {
		n, err := m.mem.Written(guestmem.Range{GPA: gpa, Size: hotSize})
		if err != nil {
			return nil, opErr("hot memory", err)
		}
		if n >= hotSize/2 && len(hot) < MaxHot {
			hot = append(hot, gpa)
		}
	}
	return hot, nil
}

// mapSnapshot maps the snapshot's memory, and copies what is hot.
func (m *Machine) mapSnapshot(s *Snapshot, hot []uint64) error {
	var mapped, copied []guestmem.FilePiece
	for _, p := range s.pieces {
		for p.Size > 0 {
			unit := p.GPA &^ (hotSize - 1)
			part := p
			part.Size = min(p.Size, unit+hotSize-p.GPA)
			p.GPA, p.Size, p.Offset = part.End(), p.Size-part.Size, p.Offset+int64(part.Size)
			if !m.mem.Contains(unit, hotSize) {
				mapped = appendPiece(mapped, part) // at an end of memory
				continue
			}
			if len(m.hotCandidates) == 0 || m.hotCandidates[len(m.hotCandidates)-1] != unit {
				m.hotCandidates = append(m.hotCandidates, unit)
			}
			if slices.Contains(hot, unit) {
				copied = append(copied, part)
			} else {
				mapped = appendPiece(mapped, part)
			}
		}
	}
	if err := m.mem.MapFiles(s.file, mapped); err != nil {
		return err
	}
	for _, p := range copied {
		b, err := m.mem.Slice(p.GPA, p.Size)
		if err != nil {
			return err
		}
		if _, err := s.file.ReadAt(b, p.Offset); err != nil {
			return err
		}
	}
	return nil
}

// appendPiece adds a piece, or lengthens the last one if it goes on there: each is a mapping.
func appendPiece(pieces []guestmem.FilePiece, p guestmem.FilePiece) []guestmem.FilePiece {
	if n := len(pieces); n > 0 && pieces[n-1].End() == p.GPA && pieces[n-1].Offset+int64(pieces[n-1].Size) == p.Offset {
		pieces[n-1].Size += p.Size
		return pieces
	}
	return append(pieces, p)
}
