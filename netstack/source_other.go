//go:build !linux

package netstack

import "net"

// source reads a connection into pooled buffers.
type source struct{ conn net.Conn }

func newSource(c net.Conn) *source { return &source{c} }

// read returns a buffer with n bytes, to be released also on errors.
func (s *source) read() (*[copyBuffer]byte, int, error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	n, err := s.conn.Read(buf[:])
	return buf, n, err
}

func (s *source) release(buf *[copyBuffer]byte) { copyBuffers.Put(buf) }
