package vsock

import "encoding/binary"

// Numbers of virtio 1.2 §5.10.
const (
	headerSize = 44 // struct virtio_vsock_hdr

	typeStream = 1

	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opData          = 5
	opCreditUpdate  = 6
	opCreditRequest = 7

	shutReceive = 1 << 0 // the sender of the packet reads no more
	shutSend    = 1 << 1 // the sender of the packet writes no more
	shutBoth    = shutReceive | shutSend
)

// header is struct virtio_vsock_hdr, little endian on the wire.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	length           uint32
	typ, op          uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

func (h *header) decode(b *[headerSize]byte) {
	le := binary.LittleEndian
	h.srcCID = le.Uint64(b[0:])
	h.dstCID = le.Uint64(b[8:])
	h.srcPort = le.Uint32(b[16:])
	h.dstPort = le.Uint32(b[20:])
	h.length = le.Uint32(b[24:])
	h.typ = le.Uint16(b[28:])
	h.op = le.Uint16(b[30:])
	h.flags = le.Uint32(b[32:])
	h.bufAlloc = le.Uint32(b[36:])
	h.fwdCnt = le.Uint32(b[40:])
}

func (h *header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

// cursor walks over the buffers of a descriptor chain, which the driver may
// cut at any byte, also inside the header.
type cursor struct {
	bufs [][]byte
	off  int // inside bufs[0]
}

// next returns the contiguous bytes at the cursor; empty at the end.
func (c *cursor) next() []byte {
	for len(c.bufs) > 0 {
		if b := c.bufs[0][c.off:]; len(b) > 0 {
			return b
		}
		c.bufs, c.off = c.bufs[1:], 0
	}
	return nil
}

// read copies out of the chain and returns how much there was.
func (c *cursor) read(p []byte) int {
	n := 0
	for n < len(p) {
		b := c.next()
		if len(b) == 0 {
			break
		}
		m := copy(p[n:], b)
		c.off += m
		n += m
	}
	return n
}

// write copies into the chain and returns how much found room.
func (c *cursor) write(p []byte) int {
	n := 0
	for n < len(p) {
		b := c.next()
		if len(b) == 0 {
			break
		}
		m := copy(b, p[n:])
		c.off += m
		n += m
	}
	return n
}
