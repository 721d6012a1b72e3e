package net

import (
	"encoding/binary"
	"errors"
)

// GSO says how a frame that is larger than the MTU is to be cut into packets.
type GSO uint8

// What a frame may be (5.1.6). UDP offloads are not offered: Linux dropped UFO,
// and drivers know USO only since 6.2.
const (
	GSONone  GSO = 0
	GSOTCPv4 GSO = 1
	GSOTCPv6 GSO = 4

	gsoECN = 0x80
)

const (
	headerLen = 12 // struct virtio_net_hdr with num_buffers, as VERSION_1 has it

	flagNeedsCsum = 1
	flagDataValid = 2

	// minSegment is the least that a segment must carry: a guest that asks for
	// segments of one byte wants work for 64 Ki packets done for one.
	minSegment = 64
)

// Header is what goes with a frame besides its bytes.
type Header struct {
	// NeedsChecksum says that the 16 bits at ChecksumStart+ChecksumOffset hold
	// the pseudo header's sum only, and that the checksum of everything from
	// ChecksumStart on is still to be stored there.
	NeedsChecksum bool
	// ChecksumValid says that whoever made the frame vouches for its checksum.
	ChecksumValid  bool
	ChecksumStart  uint16 // bytes from the begin of the frame
	ChecksumOffset uint16 // bytes from ChecksumStart
	GSO            GSO
	SegmentSize    uint16 // payload bytes of each segment, when GSO is set
	HeaderLen      uint16 // headers up to the payload; a hint, from the guest too
}

// Reasons to drop a frame of the guest.
var (
	errShort    = errors.New("frame is shorter than its headers")
	errLong     = errors.New("frame is over the maximum")
	errOffload  = errors.New("offload that was not negotiated")
	errChecksum = errors.New("checksum field outside the frame")
	errSegment  = errors.New("bad segment size")
)

// parse reads and checks the header of a frame of n bytes. features are the
// negotiated ones, mtu the card's.
func (h *Header) parse(b *[headerLen]byte, n uint64, features uint64, mtu int) error {
	le := binary.LittleEndian
	*h = Header{
		NeedsChecksum:  b[0]&flagNeedsCsum != 0,
		GSO:            GSO(b[1] &^ gsoECN),
		HeaderLen:      le.Uint16(b[2:]),
		SegmentSize:    le.Uint16(b[4:]),
		ChecksumStart:  le.Uint16(b[6:]),
		ChecksumOffset: le.Uint16(b[8:]),
	}
	if n < ethHeader {
		return errShort
	}
	if !h.NeedsChecksum {
		h.ChecksumStart, h.ChecksumOffset = 0, 0
	} else {
		if features&featureCsum == 0 {
			return errOffload
		}
		if uint64(h.ChecksumStart) < ethHeader || uint64(h.ChecksumStart)+uint64(h.ChecksumOffset)+2 > n {
			return errChecksum
		}
	}
	if h.GSO == GSONone {
		h.SegmentSize, h.HeaderLen = 0, 0
		if b[1] != 0 {
			return errOffload
		}
		if n > uint64(ethHeader+vlanHeader+mtu) {
			return errLong
		}
		return nil
	}
	var want uint64
	switch h.GSO {
	case GSOTCPv4:
		want = featureHostTSO4
	case GSOTCPv6:
		want = featureHostTSO6
	default:
		return errOffload
	}
	if b[1]&gsoECN != 0 {
		want |= featureHostECN
	}
	if features&want != want || !h.NeedsChecksum {
		return errOffload
	}
	if h.SegmentSize < minSegment || int(h.SegmentSize) > mtu {
		return errSegment
	}
	if n > MaxFrame {
		return errLong
	}
	return nil
}

// put writes the header for a guest; buffers is how many chains the frame takes.
func (h *Header) put(b *[headerLen]byte, buffers uint16) {
	le := binary.LittleEndian
	*b = [headerLen]byte{1: byte(h.GSO)}
	switch {
	case h.NeedsChecksum:
		b[0] = flagNeedsCsum
		le.PutUint16(b[6:], h.ChecksumStart)
		le.PutUint16(b[8:], h.ChecksumOffset)
	case h.ChecksumValid:
		b[0] = flagDataValid
	}
	if h.GSO != GSONone {
		le.PutUint16(b[2:], h.HeaderLen)
		le.PutUint16(b[4:], h.SegmentSize)
	}
	le.PutUint16(b[10:], buffers)
}

// allowed reports whether a guest that negotiated features can take a frame with
// this header.
func (h *Header) allowed(features uint64) bool {
	var want uint64
	if h.NeedsChecksum {
		want = featureGuestCsum
	}
	switch h.GSO {
	case GSONone:
	case GSOTCPv4:
		want |= featureGuestTSO4
	case GSOTCPv6:
		want |= featureGuestTSO6
	default:
		return false
	}
	return features&want == want
}
