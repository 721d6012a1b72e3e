package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	vnet "github.com/hutchvm/hutch/virtio/net"
)

// deliverPlain cuts a segment and fills in checksums, for a guest whose driver
// takes no offloads. It reports false when nothing of it could be received yet.
// Pieces that find no buffer after the first one are lost, and sent again by TCP.
func (l *link) deliverPlain(h *vnet.Header, pieces [][]byte, n int) bool {
	frame := make([]byte, 0, n)
	for _, p := range pieces {
		frame = append(frame, p...)
	}
	first := true
	ok := eachSegment(frame, h, func(f []byte) bool {
		l.pieces[0] = f
		err := l.s.dev.Receive(0, &vnet.Header{}, l.pieces[:1])
		if err == vnet.ErrNoBuffers && first {
			return false
		}
		if err != nil {
			l.s.counters.rxDropped.Add(1)
		}
		first = false
		return true
	})
	return ok
}

// eachSegment calls f with each complete packet that a frame of the stack stands
// for, until f reports false.
func eachSegment(frame []byte, h *vnet.Header, f func([]byte) bool) bool {
	if !h.NeedsChecksum {
		return f(frame)
	}
	ip, tcp := ethLen, int(h.ChecksumStart)
	v6 := frame[ip]>>4 == 6
	hdr := tcp + int(header.TCP(frame[tcp:]).DataOffset())
	size := len(frame) - hdr
	if h.GSO != vnet.GSONone {
		size = int(h.SegmentSize)
	}
	payload := frame[hdr:]
	seq := header.TCP(frame[tcp:]).SequenceNumber()
	flags := header.TCP(frame[tcp:]).Flags()
	id := uint16(0)
	if !v6 {
		id = header.IPv4(frame[ip:]).ID()
	}
	for off := 0; ; off += size {
		part := payload[off:min(off+size, len(payload))]
		last := off+len(part) == len(payload)
		// Segments of the stack are not larger than what came before them.
		out := append(append(make([]byte, 0, hdr+len(part)), frame[:hdr]...), part...)
		t := header.TCP(out[tcp:])
		t.SetSequenceNumber(seq + uint32(off))
		fl := flags
		if !last {
			fl &^= header.TCPFlagFin | header.TCPFlagPsh
		}
		t.SetFlags(uint8(fl))
		var sum uint16
		if v6 {
			p := header.IPv6(out[ip:])
			p.SetPayloadLength(uint16(len(out) - tcp))
			sum = header.PseudoHeaderChecksum(header.TCPProtocolNumber, p.SourceAddress(), p.DestinationAddress(), uint16(len(out)-tcp))
		} else {
			p := header.IPv4(out[ip:])
			p.SetTotalLength(uint16(len(out) - ip))
			p.SetID(id)
			id++
			p.SetChecksum(0)
			p.SetChecksum(^p.CalculateChecksum())
			sum = header.PseudoHeaderChecksum(header.TCPProtocolNumber, p.SourceAddress(), p.DestinationAddress(), uint16(len(out)-tcp))
		}
		binary.BigEndian.PutUint16(out[tcp+header.TCPChecksumOffset:], 0)
		binary.BigEndian.PutUint16(out[tcp+header.TCPChecksumOffset:], ^checksum.Checksum(out[tcp:], sum))
		if !f(out) {
			return false
		}
		if last {
			return true
		}
	}
}
