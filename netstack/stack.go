// Package netstack is the network of one sandbox: a virtio network card whose
// other end is a TCP/IP stack in this process (gVisor's), which carries the
// guest's flows on through ordinary sockets of the host. It needs no privileges
// and no devices, and the guest sees nothing of the host's network but what its
// flows reach.
//
// From ring to socket: the card shows frames of up to 64 KiB in guest memory to
// the link, which checks them and copies their packets once into buffers of the
// stack. A flow to a new place is asked about (Config.Decide), its other end is
// opened, and only then is the guest answered. Two goroutines for each TCP flow
// move data between the stack's endpoint and the socket, without a copy from
// guest to host. Segments of up to 64 KiB go back to the guest's ring.
//
// Types of gVisor stop at the border of this package.
package netstack

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	vnet "github.com/hutchvm/hutch/virtio/net"
)

const (
	nicID = 1

	// Buffers of a TCP endpoint towards the guest. What a guest can make the
	// host keep is the most of both for each of its connections, and bufferTotal
	// for many of them.
	bufferMin     = 16 << 10
	bufferDefault = 512 << 10
	bufferMax     = 1 << 20
	bufferTotal   = 256 << 20

	// timeWait is short: packets of the one link cannot come late, and a guest
	// that uses a port again at once must not wait.
	timeWait = 10 * time.Millisecond
	linger   = 10 * time.Second
	// minRTO is long, and losses are not looked for early: the link loses nothing,
	// but a guest may get no CPU for a while, and a segment that was sent again
	// for nothing makes TCP start from the smallest window.
	minRTO = 2 * time.Second
)

// Stack is a network with its card. Its methods may be called from any goroutine.
type Stack struct {
	cfg   Config
	addrs Addresses
	dev   *vnet.Device
	link  *link
	ip    *stack.Stack

	ctx    context.Context
	stop   context.CancelFunc
	mu     sync.Mutex // guards closed, and adding to tasks
	closed bool
	tasks  sync.WaitGroup

	forward  *tcp.Forwarder
	slots    chan struct{} // one taken by each TCP connection of the guest
	udp      udpTable
	pings    pingTable
	dnsBusy  atomic.Int64
	counters counters
}

// New makes a network. Its card goes into a machine by Device; the network works
// from then on. Close it after the machine.
func New(cfg Config) (*Stack, error) {
	cfg, addrs, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Stack{cfg: cfg, addrs: addrs, slots: make(chan struct{}, cfg.MaxConnections)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.udp.init()
	s.link = newLink(s)
	s.dev, err = vnet.New(vnet.Config{
		Backend: s.link, MAC: addrs.MAC, MTU: addrs.MTU, Pairs: cfg.QueuePairs,
	})
	if err != nil {
		s.stop()
		return nil, &OpError{"config", "", fmt.Errorf("%w: %w", ErrConfig, err)}
	}
	if err := s.startIP(); err != nil {
		s.stop()
		s.ip.Destroy()
		return nil, &OpError{"start", "", err}
	}
	return s, nil
}

// startIP makes the TCP/IP stack.
func (s *Stack) startIP() error {
	s.ip = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			ipv6.NewProtocolWithOptions(ipv6.Options{
				// The link answers neighbor discovery; nobody else is there.
				DADConfigs: stack.DADConfigurations{DupAddrDetectTransmits: 0},
			}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := s.tuneTCP(); err != nil {
		return err
	}
	check := func(what string, err tcpip.Error) error {
		if err != nil {
			return fmt.Errorf("%s: %v", what, err)
		}
		return nil
	}
	if err := check("create interface", s.ip.CreateNICWithOptions(nicID, s.link, stack.NICOptions{Name: "guest", QDisc: s.link})); err != nil {
		return err
	}
	// Flows to any address end here, and answers come from any address.
	if err := check("promiscuous mode", s.ip.SetPromiscuousMode(nicID, true)); err != nil {
		return err
	}
	if err := check("spoofing", s.ip.SetSpoofing(nicID, true)); err != nil {
		return err
	}
	var routes []tcpip.Route
	for _, g := range []netip.Addr{s.addrs.Gateway4, s.addrs.Gateway6} {
		if !g.IsValid() {
			continue
		}
		addr := tcpip.ProtocolAddress{
			Protocol:          protocolOf(g),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: addrOf(g), PrefixLen: g.BitLen()},
		}
		if err := check("add address", s.ip.AddProtocolAddress(nicID, addr, stack.AddressProperties{})); err != nil {
			return err
		}
		all := header.IPv4EmptySubnet
		if g.Is6() {
			all = header.IPv6EmptySubnet
		}
		routes = append(routes, tcpip.Route{Destination: all, NIC: nicID})
	}
	s.ip.SetRouteTable(routes)
	s.forward = tcp.NewForwarder(s.ip, 0, s.cfg.MaxConnections+backlog, s.acceptTCP)
	s.ip.SetTransportProtocolHandler(tcp.ProtocolNumber, s.handleTCP)
	s.ip.SetTransportProtocolHandler(udp.ProtocolNumber, s.handleUDP)
	return nil
}

func (s *Stack) tuneTCP() error {
	limit := min(bufferMax, max(bufferTotal/s.cfg.MaxConnections, 4*bufferMin))
	def := min(bufferDefault, limit)
	sack := tcpip.TCPSACKEnabled(true)
	reno := tcpip.CongestionControlOption("reno") // gVisor's cubic overflows its window
	snd := tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: def, Max: limit}
	rcv := tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: def, Max: limit}
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	lingerOpt := tcpip.TCPLingerTimeoutOption(linger)
	rto := tcpip.TCPMinRTOOption(minRTO)
	noRACK := tcpip.TCPRecovery(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &reno, &snd, &rcv, &moderate, &wait, &lingerOpt, &rto, &noRACK} {
		if err := s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("TCP option %T: %v", o, err)
		}
	}
	return nil
}

// Device is the card. It belongs to the network; the machine's transport resets
// it, and it may be saved and restored there.
func (s *Stack) Device() *vnet.Device { return s.dev }

// Addresses is what the guest has to be set up with.
func (s *Stack) Addresses() Addresses { return s.addrs }

// begin counts a goroutine that Close waits for. It reports false when the
// network is closed.
func (s *Stack) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.tasks.Add(1)
	return true
}

// start runs f on a goroutine that Close waits for.
func (s *Stack) start(f func()) bool {
	if !s.begin() {
		return false
	}
	go func() {
		defer s.tasks.Done()
		f()
	}()
	return true
}

// Close ends all flows at once, half-open ones too, closes the published ports
// and waits for all goroutines. The machine must have been closed before, or its
// guest finds a network that answers nothing. It is idempotent.
func (s *Stack) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		s.tasks.Wait()
		return nil
	}
	s.stop()
	s.link.close()
	done := make(chan struct{})
	go func() {
		s.tasks.Wait()
		close(done)
	}()
	for {
		// A handshake may have begun after we looked.
		s.abortEndpoints()
		select {
		case <-done:
			s.ip.Destroy()
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}
