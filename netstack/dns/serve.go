package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

const (
	// connIdle is how long a TCP connection of the guest may wait for a query.
	connIdle = 10 * time.Second
	// connQueries bounds the queries of one connection.
	connQueries = 1024
)

// ServeUDP answers one datagram; see Handle. Which address it was sent to makes
// no difference.
func (p *Proxy) ServeUDP(ctx context.Context, message []byte, _ netip.AddrPort) []byte {
	return p.Handle(ctx, message, false)
}

// ServeTCP answers the queries of a TCP connection, one after the other, until
// the guest closes it, is idle for 10 s, breaks the protocol, or ctx ends. It
// closes the connection.
func (p *Proxy) ServeTCP(ctx context.Context, c net.Conn, _ netip.AddrPort) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for range connQueries {
		c.SetReadDeadline(time.Now().Add(connIdle))
		message, err := readFrame(c)
		if err != nil {
			return
		}
		reply := p.Handle(ctx, message, true)
		if reply == nil {
			return
		}
		c.SetWriteDeadline(time.Now().Add(connIdle))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}
