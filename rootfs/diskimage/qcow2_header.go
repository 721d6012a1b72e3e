package diskimage

import (
	"encoding/binary"
	"fmt"
	"os"
)

var be = binary.BigEndian

// Numbers of the format (qemu/docs/interop/qcow2.txt).
const (
	qMagic = 0x514649fb // "QFI\xfb"

	qHeaderV2 = 72
	qHeaderV3 = 104

	qDirty       = 1 << 0 // incompatible features
	qCorrupt     = 1 << 1
	qExternal    = 1 << 2
	qCompression = 1 << 3
	qExtendedL2  = 1 << 4
	qKnown       = qDirty | qCorrupt | qExternal | qCompression | qExtendedL2

	qExtEnd     = 0
	qExtBacking = 0xe2792aca // name of the backing file's format

	// Offsets of header fields that are written.
	qAtReftable  = 48
	qAtAutoclear = 88

	// Limits on what is held in memory, whatever the image says.
	maxL1      = 1 << 20 // entries
	maxRefs    = 1 << 20 // entries of the refcount table
	maxBacking = 1023    // bytes of a backing file's name
)

// qHeader is a checked header.
type qHeader struct {
	version     uint32
	clusterBits uint
	size        int64 // of the disk, as written
	l1At        int64
	l1Len       int // entries
	refAt       int64
	refClusters int64
	refOrder    uint // log2 of the bits of a refcount
	zstd        bool
	incompat    uint64
	autoclear   uint64
	backing     string
	backingFmt  Format
	snapAt      int64
	snapshots   uint32
}

func (h *qHeader) cluster() int64 { return 1 << h.clusterBits }

// l2Bits is log2 of the entries of an L2 table.
func (h *qHeader) l2Bits() uint { return h.clusterBits - 3 }

// readHeader reads and checks the header of an image of fileSize bytes.
func readHeader(f *os.File, fileSize int64) (*qHeader, error) {
	b := make([]byte, qHeaderV3+8)
	n, err := f.ReadAt(b, 0)
	if n < qHeaderV2 || be.Uint32(b) != qMagic {
		if err != nil && n == 0 && fileSize > 0 {
			return nil, err
		}
		return nil, fmt.Errorf("%w: no qcow2 header", ErrFormat)
	}
	clear(b[n:])
	h := &qHeader{
		version:     be.Uint32(b[4:]),
		clusterBits: uint(be.Uint32(b[20:])),
		size:        int64(be.Uint64(b[24:])),
		l1Len:       int(be.Uint32(b[36:])),
		l1At:        int64(be.Uint64(b[40:])),
		refAt:       int64(be.Uint64(b[qAtReftable:])),
		refClusters: int64(be.Uint32(b[56:])),
		snapshots:   be.Uint32(b[60:]),
		snapAt:      int64(be.Uint64(b[64:])),
		refOrder:    4,
	}
	headerLen := int64(qHeaderV2)
	switch {
	case h.version == 3:
		h.incompat, h.autoclear = be.Uint64(b[72:]), be.Uint64(b[qAtAutoclear:])
		h.refOrder = uint(be.Uint32(b[96:]))
		headerLen = int64(be.Uint32(b[100:]))
		if headerLen < qHeaderV3 {
			return nil, fmt.Errorf("%w: header of %d bytes", ErrCorrupt, headerLen)
		}
		if h.incompat&qCompression != 0 && headerLen > qHeaderV3 {
			switch b[qHeaderV3] {
			case 0:
			case 1:
				h.zstd = true
			default:
				return nil, fmt.Errorf("%w: compression type %d", ErrUnsupported, b[qHeaderV3])
			}
		}
	case h.version != 2:
		return nil, fmt.Errorf("%w: qcow2 version %d", ErrUnsupported, h.version)
	}
	if err := h.check(fileSize, be.Uint32(b[32:]), headerLen); err != nil {
		return nil, err
	}
	return h, h.readNames(f, headerLen, int64(be.Uint64(b[8:])), int64(be.Uint32(b[16:])))
}

func (h *qHeader) check(fileSize int64, crypt uint32, headerLen int64) error {
	if crypt != 0 {
		return fmt.Errorf("%w: encryption", ErrUnsupported)
	}
	switch {
	case h.incompat&^qKnown != 0:
		return fmt.Errorf("%w: unknown incompatible feature bits %#x", ErrUnsupported, h.incompat&^qKnown)
	case h.incompat&qExternal != 0:
		return fmt.Errorf("%w: external data file", ErrUnsupported)
	case h.incompat&qExtendedL2 != 0:
		return fmt.Errorf("%w: extended L2 entries (subclusters)", ErrUnsupported)
	case h.clusterBits < 9 || h.clusterBits > 21:
		return fmt.Errorf("%w: clusters of 2^%d bytes", ErrCorrupt, h.clusterBits)
	case h.refOrder > 6:
		return fmt.Errorf("%w: refcounts of 2^%d bits", ErrCorrupt, h.refOrder)
	case headerLen > h.cluster():
		return fmt.Errorf("%w: header of %d bytes", ErrCorrupt, headerLen)
	case h.size < 0 || h.size > 1<<62:
		return fmt.Errorf("%w: disk of %d bytes", ErrCorrupt, uint64(h.size))
	case h.l1Len > maxL1:
		return fmt.Errorf("%w: L1 table of %d entries, at most %d", ErrUnsupported, h.l1Len, maxL1)
	case h.refClusters > maxRefs*8/h.cluster() || h.refClusters == 0:
		return fmt.Errorf("%w: refcount table of %d clusters", ErrCorrupt, h.refClusters)
	}
	perL1 := h.cluster() << h.l2Bits() // bytes of the disk
	if int64(h.l1Len) < (h.size+perL1-1)/perL1 {
		return fmt.Errorf("%w: L1 table of %d entries is too short for %d bytes", ErrCorrupt, h.l1Len, h.size)
	}
	if err := h.inside("L1 table", h.l1At, int64(h.l1Len)*8, fileSize); err != nil {
		return err
	}
	return h.inside("refcount table", h.refAt, h.refClusters*h.cluster(), fileSize)
}

// inside checks that a table is in the file, and not in the header.
func (h *qHeader) inside(what string, at, n, fileSize int64) error {
	if n > 0 && (at < h.cluster() || at&(h.cluster()-1) != 0 || at > fileSize || n > fileSize-at) {
		return fmt.Errorf("%w: %s at %#x in a file of %d bytes", ErrCorrupt, what, at, fileSize)
	}
	return nil
}

// readNames reads the backing file's name and format.
func (h *qHeader) readNames(f *os.File, headerLen, nameAt, nameLen int64) error {
	if nameAt == 0 || nameLen == 0 {
		return nil
	}
	if nameLen > maxBacking || nameAt < headerLen || nameAt > h.cluster()-nameLen {
		return fmt.Errorf("%w: name of the backing file: %d bytes at %#x", ErrCorrupt, nameLen, nameAt)
	}
	b := make([]byte, nameAt+nameLen)
	if _, err := f.ReadAt(b, 0); err != nil {
		return fmt.Errorf("%w: name of the backing file: %w", ErrCorrupt, err)
	}
	h.backing = string(b[nameAt:])
	for at := headerLen; at+8 <= nameAt; {
		kind, n := be.Uint32(b[at:]), int64(be.Uint32(b[at+4:]))
		at += 8
		if kind == qExtEnd {
			break
		}
		if n > nameAt-at {
			return fmt.Errorf("%w: header extension of %d bytes", ErrCorrupt, n)
		}
		if kind == qExtBacking {
			h.backingFmt = Format(b[at : at+n])
		}
		at += (n + 7) &^ 7
	}
	return nil
}
