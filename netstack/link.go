package netstack

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	vnet "github.com/hutchvm/hutch/virtio/net"
)

const (
	ethLen = header.EthernetMinimumSize

	// Packets for a guest that gives no receive buffers wait. Those of TCP share
	// their bytes with the endpoint that sends them, and to lose one is dear, so
	// only their number is limited; of others there may be maxPendingBytes.
	maxPendingPackets = 16 << 10
	maxPendingBytes   = 2 << 20

	// maxPieces bounds the buffers that one packet is made of before it is
	// copied together.
	maxPieces = 64
)

// link is what is between card and stack: the card's backend, and the stack's
// link endpoint with its queueing discipline.
type link struct {
	s          *Stack
	dispatcher atomic.Pointer[stack.NetworkDispatcher]

	tx      bucket // frames of the guest
	txTimer wakeTimer

	// mu guards the way to the guest: whoever has a packet for it copies it into
	// the guest's buffers himself.
	mu      sync.Mutex
	pieces  [maxPieces][]byte
	pending []*stack.PacketBuffer // from head on
	head    int
	bytes   int // in those of pending that are not TCP
	rx      bucket
	rxTimer wakeTimer
	closed  bool

	corked    int  // writers at work
	unflushed bool // the guest has packets that it was not told of
}

var (
	_ vnet.Backend             = (*link)(nil)
	_ stack.LinkEndpoint       = (*link)(nil)
	_ stack.GSOEndpoint        = (*link)(nil)
	_ stack.QueueingDiscipline = (*link)(nil)
)

func newLink(s *Stack) *link {
	l := &link{s: s}
	now := time.Now()
	l.tx.init(s.cfg.Transmit, now)
	l.rx.init(s.cfg.Receive, now)
	l.txTimer.init(func() {
		for i := range max(s.cfg.QueuePairs, 1) {
			s.dev.WakeTransmit(i)
		}
	})
	l.rxTimer.init(func() { l.ReceiveReady(0) })
	return l
}

// close drops what waits; nothing passes any more.
func (l *link) close() {
	l.txTimer.stop()
	l.rxTimer.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, p := range l.pending[l.head:] {
		p.DecRef()
	}
	l.pending, l.head, l.bytes = nil, 0, 0
}

// Transmit takes a frame of the guest.
func (l *link) Transmit(_ int, f *vnet.Frame) bool {
	if l.tx.limited {
		packets := 1
		if f.Header.GSO != vnet.GSONone {
			packets += f.Len / int(f.Header.SegmentSize)
		}
		if wait := l.tx.take(time.Now(), f.Len, packets); wait > 0 {
			l.txTimer.start(wait)
			return false
		}
	}
	l.input(f)
	return true
}

// TransmitDone does nothing: the stack has all frames already.
func (l *link) TransmitDone(int) {}

// input checks a frame and gives its packet to the stack.
func (l *link) input(f *vnet.Frame) {
	// Headers are copied before they are looked at: the guest may change them.
	var b [headLen]byte
	head := b[:f.Data.CopyTo(b[:], 0)]
	if [6]byte(head[6:12]) != l.s.addrs.MAC {
		l.drop() // spoofed
		return
	}
	proto := tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(head[12:]))
	packet := head[ethLen:]
	var v verdict
	switch proto {
	case header.IPv4ProtocolNumber:
		v = l.s.checkIPv4(packet, f.Len-ethLen)
	case header.IPv6ProtocolNumber:
		v = l.s.checkIPv6(packet, f.Len-ethLen)
	case header.ARPProtocolNumber:
		l.s.answerARP(packet)
		return
	}
	if v == verdictDrop {
		l.drop()
		return
	}
	view := buffer.NewViewSize(f.Len - ethLen)
	data := view.AsSlice()
	f.Data.CopyTo(data, ethLen)
	// What was checked is what is used.
	copy(data, packet)
	if v == verdictLocal {
		l.s.local(proto, data)
		view.Release()
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
	if d := l.dispatcher.Load(); d != nil {
		(*d).DeliverNetworkPacket(proto, pkt)
	}
	pkt.DecRef()
}

func (l *link) drop() { l.s.counters.txDropped.Add(1) }

// WritePacket is the stack sending one packet.
func (l *link) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.send(pkt)
}

// WritePackets is not used by the stack, which has WritePacket.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		if err := l.WritePacket(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

// send gives a packet to the guest, or lets it wait.
func (l *link) send(pkt *stack.PacketBuffer) tcpip.Error {
	if l.closed {
		return &tcpip.ErrClosedForSend{}
	}
	// An acknowledgement waits for nobody: the guest may have to have it to go on.
	// It may overtake its own flow's data, since it says nothing of them.
	ack := pureACK(pkt)
	if (ack || len(l.pending) == l.head) && l.deliver(pkt) {
		if l.unflushed = true; l.corked == 0 || ack {
			l.flush()
		}
		return nil
	}
	n := charge(pkt)
	if len(l.pending)-l.head >= maxPendingPackets || n > 0 && l.bytes+n > maxPendingBytes {
		l.s.counters.rxDropped.Add(1)
		return &tcpip.ErrNoBufferSpace{}
	}
	l.pending = append(l.pending, pkt.IncRef())
	l.bytes += n
	return nil
}

// flush tells the guest of what it received. The caller holds l.mu.
func (l *link) flush() {
	l.unflushed = false
	l.s.dev.Flush(0)
}

// cork keeps the guest from being told of received segments until somebody calls
// uncork: one interrupt is enough for all segments of one write.
func (l *link) cork() {
	l.mu.Lock()
	l.corked++
	l.mu.Unlock()
}

func (l *link) uncork() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.corked--
	if l.unflushed {
		l.flush()
	}
}

// charge is what a waiting packet counts for in link.bytes.
func charge(pkt *stack.PacketBuffer) int {
	if pkt.TransportProtocolNumber == header.TCPProtocolNumber {
		return 0
	}
	return pkt.Size()
}

// pureACK tells whether a packet is nothing but a TCP acknowledgement.
func pureACK(pkt *stack.PacketBuffer) bool {
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber || pkt.Data().Size() != 0 {
		return false
	}
	h := header.TCP(pkt.TransportHeader().Slice())
	return len(h) >= header.TCPMinimumSize && h.Flags() == header.TCPFlagAck
}

// ReceiveReady sends what waited for receive buffers, or for the rate.
func (l *link) ReceiveReady(int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := false
	for l.head < len(l.pending) {
		pkt := l.pending[l.head]
		n := charge(pkt)
		if !l.deliver(pkt) {
			break
		}
		sent = true
		l.pending[l.head] = nil
		l.head++
		l.bytes -= n
		pkt.DecRef()
	}
	if l.head == len(l.pending) {
		l.pending, l.head = l.pending[:0], 0
		if cap(l.pending) > 64 {
			l.pending = nil
		}
	}
	if sent {
		l.flush()
	}
}

// deliver reports false when the packet has to wait. One that can never be
// delivered is dropped.
func (l *link) deliver(pkt *stack.PacketBuffer) bool {
	pieces, n := l.gather(pkt)
	h := vnet.Header{ChecksumValid: true}
	gso := &pkt.GSOOptions
	if gso.Type != stack.GSONone {
		if gso.NeedsCsum {
			h.ChecksumValid, h.NeedsChecksum = false, true
			h.ChecksumStart = uint16(ethLen + len(pkt.NetworkHeader().Slice()))
			h.ChecksumOffset = gso.CsumOffset
		}
		if pkt.Data().Size() > int(gso.MSS) {
			h.GSO, h.SegmentSize = vnet.GSOTCPv4, gso.MSS
			if gso.Type == stack.GSOTCPv6 {
				h.GSO = vnet.GSOTCPv6
			}
			h.HeaderLen = uint16(n - pkt.Data().Size())
		}
	}
	packets := 1
	if h.SegmentSize > 0 {
		packets += n / int(h.SegmentSize)
	}
	if l.rx.limited {
		if wait := l.rx.take(time.Now(), n, packets); wait > 0 {
			l.rxTimer.start(wait)
			return false
		}
	}
	err := l.s.dev.Receive(0, &h, pieces)
	switch err {
	case nil:
	case vnet.ErrNoBuffers:
		l.rx.give(n, packets)
		return false
	case vnet.ErrOffload:
		return l.deliverPlain(&h, pieces, n)
	default:
		l.s.counters.rxDropped.Add(1)
	}
	return true
}

// gather lists the pieces of a packet, its Ethernet header first.
func (l *link) gather(pkt *stack.PacketBuffer) (pieces [][]byte, n int) {
	views, off := pkt.AsViewList()
	pieces = l.pieces[:0]
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if off >= len(b) {
			off -= len(b)
			continue
		}
		b, off = b[off:], 0
		if len(pieces) == maxPieces {
			// Rare: many small writes in one segment.
			pieces = append(l.pieces[:0], pkt.ToView().AsSlice())
			return pieces, len(pieces[0])
		}
		pieces = append(pieces, b)
		n += len(b)
	}
	return pieces, n
}

// sendRaw gives a frame that did not come from the stack to the guest, if it
// takes one now.
func (l *link) sendRaw(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.rx.limited && l.rx.take(time.Now(), len(frame), 1) > 0 {
		return
	}
	l.pieces[0] = frame
	if err := l.s.dev.Receive(0, &vnet.Header{}, l.pieces[:1]); err != nil {
		l.s.counters.rxDropped.Add(1)
		return
	}
	l.flush()
}

// AddHeader puts the Ethernet header before a packet. There is only one station
// that it can go to.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	b := pkt.LinkHeader().Push(ethLen)
	copy(b, l.s.addrs.MAC[:])
	copy(b[6:], l.s.addrs.GatewayMAC[:])
	binary.BigEndian.PutUint16(b[12:], uint16(pkt.NetworkProtocolNumber))
}

// GSOMaxSize is the largest segment. With its headers it must be an IP packet.
func (l *link) GSOMaxSize() uint32 { return 65535 }

// SupportedGSO says that the card cuts segments; for a guest whose driver does
// not, this link does it.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// Attach is called by the stack, with nil at the end.
func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// Capabilities: guest memory has no bit errors to check for. Addresses need no
// resolution.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// The rest of stack.LinkEndpoint is constant.

func (l *link) MTU() uint32                             { return uint32(l.s.addrs.MTU) }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return ethLen }
func (l *link) LinkAddress() tcpip.LinkAddress          { return tcpip.LinkAddress(l.s.addrs.GatewayMAC[:]) }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) IsAttached() bool                        { return l.dispatcher.Load() != nil }
func (l *link) Wait()                                   {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
