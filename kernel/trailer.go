package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A cache entry is the flat image followed by one page, the trailer. It says
// what the image is and where it goes, so that opening an entry reads one page
// and no more. Being part of the same file, it cannot be separated from the
// image by a crash or by another process that renames at the same time.
//
// All integers are little endian.
//
//	0    16  magic
//	16   32  SHA-256 of the compressed kernel that the image came from
//	48   32  SHA-256 of the image
//	80    8  guest physical address of the image
//	88    8  length of the image
//	96    8  length in memory
//	104   8  entry point
//	112  32  SHA-256 of bytes 0 to 111
const (
	trailerSize  = pageSize
	trailerMagic = "hutch kernel 1\x00\x00"
	trailerBody  = 112
)

type trailer struct {
	source  [sha256.Size]byte // of the compressed kernel
	image   [sha256.Size]byte // of the flat image
	base    uint64
	size    uint64
	memSize uint64
	entry   uint64
}

func (t *trailer) encode() []byte {
	b := make([]byte, 0, trailerSize)
	b = append(b, trailerMagic...)
	b = append(b, t.source[:]...)
	b = append(b, t.image[:]...)
	for _, v := range []uint64{t.base, t.size, t.memSize, t.entry} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	sum := sha256.Sum256(b)
	b = append(b, sum[:]...)
	return b[:trailerSize]
}

// decodeTrailer reads a trailer and checks that its numbers go together. Every
// error matches ErrCorrupt.
func decodeTrailer(b []byte) (*trailer, error) {
	if len(b) != trailerSize || string(b[:len(trailerMagic)]) != trailerMagic {
		return nil, fmt.Errorf("%w: no trailer", ErrCorrupt)
	}
	if sum := sha256.Sum256(b[:trailerBody]); !bytes.Equal(sum[:], b[trailerBody:trailerBody+sha256.Size]) {
		return nil, fmt.Errorf("%w: trailer checksum", ErrCorrupt)
	}
	t := &trailer{
		base:    binary.LittleEndian.Uint64(b[80:]),
		size:    binary.LittleEndian.Uint64(b[88:]),
		memSize: binary.LittleEndian.Uint64(b[96:]),
		entry:   binary.LittleEndian.Uint64(b[104:]),
	}
	copy(t.source[:], b[16:])
	copy(t.image[:], b[48:])
	switch {
	case t.base%pageSize != 0 || t.base < minAddress || t.base >= maxAddress,
		t.size%pageSize != 0 || t.size == 0 || t.size > t.memSize,
		t.memSize%pageSize != 0 || t.memSize > maxSpan,
		t.entry < t.base || t.entry-t.base >= t.size:
		return nil, fmt.Errorf("%w: trailer values", ErrCorrupt)
	}
	return t, nil
}
