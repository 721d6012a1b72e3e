package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	guestRXBuf   = 2048
	guestTXSlots = 32
	guestTXSlot  = 66 << 10
	vhdr         = 12
)

// ring is the driver's side of one queue, as fast as it can be: entry i of the
// ring is always descriptor i.
type ring struct {
	q           *virtiotest.Queue
	avail, used guestmem.Window
	mem         []byte // all buffers
	bufLen      int
	n           int
	idx, last   uint16
	kicked      uint16
	desc        []byte
}

func newRing(d *virtiotest.Driver, q *virtiotest.Queue, n, bufLen int, flags uint16) *ring {
	r := &ring{q: q, bufLen: bufLen, n: n}
	at := d.Alloc(n * bufLen)
	r.mem, _ = d.Mem.Slice(at, uint64(n*bufLen))
	r.avail, _ = d.Mem.Window(q.AvailAddr, 6+2*uint64(q.Size), 2)
	r.used, _ = d.Mem.Window(q.UsedAddr, 6+8*uint64(q.Size), 4)
	r.desc, _ = d.Mem.Slice(q.DescAddr, 16*uint64(q.Size))
	for i := range n {
		q.PokeDesc(uint16(i), virtiotest.Desc{Addr: at + uint64(i*bufLen), Len: uint32(bufLen), Flags: flags})
	}
	return r
}

func (r *ring) buf(i uint16) []byte { return r.mem[int(i)*r.bufLen:][:r.bufLen] }

// setLen changes the length of a descriptor.
func (r *ring) setLen(i uint16, n int) {
	binary.LittleEndian.PutUint32(r.desc[16*int(i)+8:], uint32(n))
}

func (r *ring) give(i uint16) {
	r.avail.Store16(4+2*int(r.idx%r.q.Size), i)
	r.idx++
	r.avail.Store16(2, r.idx)
}

func (r *ring) kick() {
	old := r.kicked
	r.kicked = r.idx
	if event := r.used.Load16(4 + 8*int(r.q.Size)); r.idx-event-1 < r.idx-old {
		r.q.ForceKick()
	}
}

func (r *ring) take() (i uint16, n int, ok bool) {
	if r.used.Load16(2) == r.last {
		return 0, 0, false
	}
	at := 4 + 8*int(r.last%r.q.Size)
	i, n = uint16(r.used.Load32(at)), int(r.used.Load32(at+4))
	r.last++
	return i, n, true
}

// wantInterrupt asks for one with the next used entry and reports whether there is
// one already.
func (r *ring) wantInterrupt() bool {
	r.avail.Store16(4+2*int(r.q.Size), r.last)
	return r.used.Load16(2) != r.last
}

// guest is a second TCP/IP stack that plays the guest's kernel, behind the rings
// of the card.
type guest struct {
	t      testing.TB
	s      *Stack
	d      *virtiotest.Driver
	ip     *stack.Stack
	disp   stack.NetworkDispatcher
	cancel context.CancelFunc
	done   sync.WaitGroup

	txMu sync.Mutex
	tx   *ring
	free []uint16
	rx   *ring

	// mute is a TCP port for which the guest's stack sees nothing.
	mute atomic.Uint32

	rawMu sync.Mutex
	raw   chan []byte // frames received, when somebody wants them
}

type guestLink struct{ *guest }

// newGuest makes a network and a guest in it.
func newGuest(t testing.TB, cfg Config, opts ...virtiotest.Options) *guest {
	t.Helper()
	if cfg.IPv4 == Auto {
		cfg.IPv4 = On
	}
	if cfg.IPv6 == Auto {
		cfg.IPv6 = On
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return attachGuest(t, s, opts...)
}

func attachGuest(t testing.TB, s *Stack, opts ...virtiotest.Options) *guest {
	t.Helper()
	g := &guest{t: t, s: s, d: virtiotest.New(t, s.Device(), opts...)}
	g.rx = newRing(g.d, g.d.Queues[0], int(g.d.Queues[0].Size), guestRXBuf, virtiotest.DescWrite)
	g.tx = newRing(g.d, g.d.Queues[1], guestTXSlots, guestTXSlot, 0)
	for i := range g.rx.n {
		g.rx.give(uint16(i))
	}
	g.d.Queues[0].ForceKick()
	for i := range guestTXSlots {
		g.free = append(g.free, uint16(i))
	}
	g.ip = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	sack := tcpip.TCPSACKEnabled(true)
	g.ip.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 4 << 20}
	g.ip.SetTransportProtocolOption(tcp.ProtocolNumber, &rcv)
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 4 << 20}
	g.ip.SetTransportProtocolOption(tcp.ProtocolNumber, &snd)
	if err := g.ip.CreateNICWithOptions(1, guestLink{g}, stack.NICOptions{QDisc: guestLink{g}}); err != nil {
		t.Fatal(err)
	}
	var routes []tcpip.Route
	for _, p := range []netip.Prefix{s.addrs.Guest4, s.addrs.Guest6} {
		if !p.IsValid() {
			continue
		}
		g.ip.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: protocolOf(p.Addr()), AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: addrOf(p.Addr()), PrefixLen: p.Bits(),
		}}, stack.AddressProperties{})
		all := header.IPv4EmptySubnet
		if p.Addr().Is6() {
			all = header.IPv6EmptySubnet
		}
		routes = append(routes, tcpip.Route{Destination: all, NIC: 1})
	}
	g.ip.SetRouteTable(routes)
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	g.done.Go(func() { g.receive(ctx) })
	t.Cleanup(g.close)
	return g
}

func (g *guest) close() {
	g.abortAll()
	g.cancel()
	g.done.Wait()
	g.ip.Destroy()
}

// receive is the guest's interrupt handler.
func (g *guest) receive(ctx context.Context) {
	var refill []uint16
	for {
		i, n, ok := g.rx.take()
		if !ok {
			for _, i := range refill {
				g.rx.give(i)
			}
			if len(refill) > 0 {
				refill = refill[:0]
				g.rx.kick()
			}
			if err := g.d.Wait(ctx, g.rx.wantInterrupt); err != nil {
				return
			}
			continue
		}
		hdr := g.rx.buf(i)[:vhdr]
		more := int(binary.LittleEndian.Uint16(hdr[10:])) - 1
		v := buffer.NewViewSize(0)
		v.Write(g.rx.buf(i)[vhdr:n])
		refill = append(refill, i)
		for ; more > 0; more-- {
			i, n, ok := g.rx.take()
			if !ok {
				g.t.Error("the pieces of a frame did not come together")
				return
			}
			v.Write(g.rx.buf(i)[:n])
			refill = append(refill, i)
		}
		g.input(v)
	}
}

func (g *guest) input(v *buffer.View) {
	frame := v.AsSlice()
	g.rawMu.Lock()
	if g.raw != nil {
		select {
		case g.raw <- append([]byte(nil), frame...):
		default:
		}
	}
	g.rawMu.Unlock()
	proto := tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(frame[12:]))
	if m := g.mute.Load(); m != 0 && len(frame) > 54 && uint32(binary.BigEndian.Uint16(frame[36:])) == m {
		return
	}
	v.TrimFront(ethLen)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	if g.disp != nil {
		g.disp.DeliverNetworkPacket(proto, pkt)
	}
	pkt.DecRef()
}

// frames starts to record received frames.
func (g *guest) frames() <-chan []byte {
	g.rawMu.Lock()
	defer g.rawMu.Unlock()
	g.raw = make(chan []byte, 1024)
	return g.raw
}

// slot waits for an unused transmit buffer.
func (g *guest) slot() (uint16, bool) {
	for range 1000 {
		for {
			i, _, ok := g.tx.take()
			if !ok {
				break
			}
			g.free = append(g.free, i)
		}
		if n := len(g.free); n > 0 {
			i := g.free[n-1]
			g.free = g.free[:n-1]
			return i, true
		}
		time.Sleep(20 * time.Microsecond)
	}
	return 0, false
}

// send transmits a frame with a virtio header.
func (g *guest) send(hdr [vhdr]byte, pieces ...[]byte) bool {
	g.txMu.Lock()
	defer g.txMu.Unlock()
	i, ok := g.slot()
	if !ok {
		return false
	}
	b := g.tx.buf(i)
	n := copy(b, hdr[:])
	for _, p := range pieces {
		n += copy(b[n:], p)
	}
	g.tx.setLen(i, n)
	g.tx.give(i)
	g.tx.kick()
	return true
}

func (l guestLink) WritePacket(pkt *stack.PacketBuffer) tcpip.Error {
	var h [vhdr]byte
	if gso := pkt.GSOOptions; gso.Type != stack.GSONone {
		h[0] = 1
		binary.LittleEndian.PutUint16(h[6:], uint16(ethLen+len(pkt.NetworkHeader().Slice())))
		binary.LittleEndian.PutUint16(h[8:], gso.CsumOffset)
		if pkt.Data().Size() > int(gso.MSS) {
			h[1] = 1
			if gso.Type == stack.GSOTCPv6 {
				h[1] = 4
			}
			binary.LittleEndian.PutUint16(h[4:], gso.MSS)
		}
	}
	if !l.send(h, pkt.AsSlices()...) {
		return &tcpip.ErrNoBufferSpace{}
	}
	return nil
}

func (l guestLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	panic("not used")
}

func (l guestLink) AddHeader(pkt *stack.PacketBuffer) {
	b := pkt.LinkHeader().Push(ethLen)
	copy(b, GatewayMAC[:])
	copy(b[6:], GuestMAC[:])
	binary.BigEndian.PutUint16(b[12:], uint16(pkt.NetworkProtocolNumber))
}

func (l guestLink) Attach(d stack.NetworkDispatcher) { l.disp = d }
func (l guestLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}
func (l guestLink) SupportedGSO() stack.SupportedGSO {
	if l.d.Features&(1<<11) == 0 {
		return stack.GSONotSupported
	}
	return stack.HostGSOSupported
}
func (l guestLink) GSOMaxSize() uint32                      { return 65535 }
func (l guestLink) MTU() uint32                             { return uint32(l.s.addrs.MTU) }
func (l guestLink) SetMTU(uint32)                           {}
func (l guestLink) MaxHeaderLength() uint16                 { return ethLen }
func (l guestLink) LinkAddress() tcpip.LinkAddress          { return tcpip.LinkAddress(GuestMAC[:]) }
func (l guestLink) SetLinkAddress(tcpip.LinkAddress)        {}
func (l guestLink) IsAttached() bool                        { return l.disp != nil }
func (l guestLink) Wait()                                   {}
func (l guestLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l guestLink) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l guestLink) Close()                                  {}
func (l guestLink) SetOnCloseAction(func())                 {}

// dial connects from the guest.
func (g *guest) dial(to string) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ap := netip.MustParseAddrPort(to)
	return gonet.DialContextTCP(ctx, g.ip, tcpip.FullAddress{Addr: addrOf(ap.Addr()), Port: ap.Port()}, protocolOf(ap.Addr()))
}

func (g *guest) mustDial(to string) *gonet.TCPConn {
	g.t.Helper()
	c, err := g.dial(to)
	if err != nil {
		g.t.Fatalf("dial %s: %v", to, err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

func (g *guest) listen(port uint16) *gonet.TCPListener {
	g.t.Helper()
	l, err := gonet.ListenTCP(g.ip, tcpip.FullAddress{Port: port}, header.IPv4ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return l
}

func (g *guest) udp(local uint16, to string) *gonet.UDPConn {
	g.t.Helper()
	ap := netip.MustParseAddrPort(to)
	var l *tcpip.FullAddress
	if local != 0 {
		l = &tcpip.FullAddress{Port: local}
	}
	c, err := gonet.DialUDP(g.ip, l, &tcpip.FullAddress{Addr: addrOf(ap.Addr()), Port: ap.Port()}, protocolOf(ap.Addr()))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// world maps addresses that the guest uses to loopback servers of the test.
type world struct {
	mu  sync.Mutex
	tcp map[netip.AddrPort]string
	udp map[netip.AddrPort]string
}

func newWorld() *world {
	return &world{tcp: make(map[netip.AddrPort]string), udp: make(map[netip.AddrPort]string)}
}

// config is a Config whose dialers only know that world.
func (w *world) config() Config {
	dial := func(network string, m map[netip.AddrPort]string) func(context.Context, netip.AddrPort) (net.Conn, error) {
		return func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			w.mu.Lock()
			addr, ok := m[to]
			w.mu.Unlock()
			if !ok {
				return nil, fmt.Errorf("no route to %v", to)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}
	}
	return Config{DialTCP: dial("tcp", w.tcp), DialUDP: dial("udp", w.udp)}
}

// serve runs a TCP server at an address of the world; handle closes its connection.
func (w *world) serve(t testing.TB, at string, handle func(*net.TCPConn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.tcp[netip.MustParseAddrPort(at)] = l.Addr().String()
	w.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { handle(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}
