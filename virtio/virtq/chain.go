package virtq

// Buffers are pieces of guest memory that together make one buffer, in order.
// The guest may write to them at any time.
type Buffers [][]byte

// Len is the number of bytes.
func (b Buffers) Len() uint64 {
	var n uint64
	for _, p := range b {
		n += uint64(len(p))
	}
	return n
}

// CopyTo copies bytes from offset off of the buffer to p and returns how many
// there were.
func (b Buffers) CopyTo(p []byte, off uint64) int {
	n := 0
	for _, piece := range b {
		if n == len(p) {
			break
		}
		if off >= uint64(len(piece)) {
			off -= uint64(len(piece))
			continue
		}
		n += copy(p[n:], piece[off:])
		off = 0
	}
	return n
}

// CopyFrom copies p into the buffer at offset off and returns how many bytes
// found room.
func (b Buffers) CopyFrom(p []byte, off uint64) int {
	n := 0
	for _, piece := range b {
		if n == len(p) {
			break
		}
		if off >= uint64(len(piece)) {
			off -= uint64(len(piece))
			continue
		}
		n += copy(piece[off:], p[n:])
		off = 0
	}
	return n
}

// Skip drops the first n bytes, in place: the elements of b are changed.
func (b Buffers) Skip(n uint64) Buffers {
	for len(b) > 0 && n >= uint64(len(b[0])) {
		n -= uint64(len(b[0]))
		b = b[1:]
	}
	if n > 0 && len(b) > 0 {
		b[0] = b[0][n:]
	}
	return b
}

// Chain is one request of the driver: buffers that the device may read, then
// buffers that it may write. Descriptors of length zero are left out, so either
// part may be empty. The slices point into guest memory and are valid until the
// chain is pushed; the Chain may be kept over several Next calls by giving Next
// another one.
type Chain struct {
	Head        uint16 // what Push wants
	Readable    Buffers
	Writable    Buffers
	ReadableLen uint64 // bytes in Readable
	WritableLen uint64 // bytes in Writable

	pos int32 // position in the available ring, for Undo; -1 when unknown

	// The storage of Readable and Writable, from before a device used Skip.
	readable0, writable0 Buffers
}

// reset empties the chain and keeps its storage.
func (c *Chain) reset() {
	c.Head, c.pos = 0, -1
	c.Readable, c.Writable = c.readable0[:0], c.writable0[:0]
	c.ReadableLen, c.WritableLen = 0, 0
}
