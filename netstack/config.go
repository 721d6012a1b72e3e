package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
	vnet "github.com/hutchvm/hutch/virtio/net"
)

// Addresses and limits that hold unless Config says otherwise. Every sandbox has
// the same addresses: each has a network of its own.
var (
	DefaultIPv4Pool = netip.MustParsePrefix("10.203.0.0/30")
	DefaultIPv6Pool = netip.MustParsePrefix("fd68:7574:6368::/64")

	// GuestMAC and GatewayMAC are locally administered and constant.
	GuestMAC   = [6]byte{0x02, 'h', 'u', 't', 'c', 'h'}
	GatewayMAC = [6]byte{0x02, 'h', 'u', 't', 'c', 'g'}
)

const (
	DefaultMaxConnections = 256
	MaxConnections        = 4096 // the most that Config.MaxConnections may be
	MaxUDPFlows           = 256
	UDPIdle               = 60 * time.Second // then a UDP flow is forgotten
	DialTimeout           = 20 * time.Second // of a connection to a host on behalf of the guest
	GuestDialTimeout      = 10 * time.Second // of a connection into the guest

	maxHello     = 16 << 10 // bytes of a ClientHello that are looked at
	helloTimeout = 5 * time.Second
	dnsPort      = 53
)

// Offer says whether an address family is offered to the guest.
type Offer uint8

// The choices. Auto offers a family that the host has a route for.
const (
	Auto Offer = iota
	On
	Off
)

// Config describes the network of one sandbox. The zero value is a network with
// everything allowed and no DNS.
type Config struct {
	// IPv4Pool and IPv6Pool are where addresses come from: a /30 or larger, and
	// a /64 or larger. The first usable address is the gateway's, the second the
	// guest's.
	IPv4Pool, IPv6Pool netip.Prefix
	// IPv4 and IPv6 say which families the guest gets.
	IPv4, IPv6 Offer
	// MTU of the guest's card in bytes, 1280 to 65535; 1500 if 0.
	MTU int
	// Hostname is told to guests that ask by DHCP. It may be empty.
	Hostname string
	// QueuePairs of the card; 1 if 0.
	QueuePairs int

	// Decide says whether a flow may be: an engine of package policy with the
	// names that DNS gave. It is asked before any socket is opened, must not
	// block and may be called from any goroutine. Addresses are as the guest
	// used them, so the gateway's stands for the host. Nil allows everything.
	Decide func(policy.Flow) policy.Decision
	// DNS answers what the guest sends to port 53 of any address, by UDP and
	// TCP. Decide is not asked about that. Nil refuses it.
	DNS DNSHandler
	// Intercept is asked about each TCP flow of the guest that was allowed,
	// before the host is connected to. A non-nil result takes the flow over.
	Intercept func(policy.Flow) StreamHandler

	// DialTCP and DialUDP open the host's end of flows: with net.Dialer if nil.
	// The address is never the gateway's: that was replaced by the host's
	// loopback address.
	DialTCP func(context.Context, netip.AddrPort) (net.Conn, error)
	DialUDP func(context.Context, netip.AddrPort) (net.Conn, error)

	// MaxConnections bounds the TCP connections of the guest, 1 to 4096; 256 if
	// 0. Up to 1,024 more wait for their turn, unanswered.
	MaxConnections int
	// Transmit limits what the guest sends, Receive what it gets.
	Transmit, Receive Rate

	// FlowLog, if set, is told of flows as they begin, are refused and end. It
	// must return soon and may be called from any goroutine. What the guest does
	// decides how often.
	FlowLog func(FlowEvent)
}

// DNSHandler answers DNS queries.
type DNSHandler interface {
	// ServeUDP answers one query that was sent to the address to. A nil answer
	// sends none. It must return when ctx ends.
	ServeUDP(ctx context.Context, query []byte, to netip.AddrPort) []byte
	// ServeTCP answers queries on a connection until it ends, and closes it.
	ServeTCP(ctx context.Context, conn net.Conn, to netip.AddrPort)
}

// StreamHandler serves one TCP flow of the guest in place of a plain copy.
type StreamHandler interface {
	// ServeStream owns guest, the guest's end, and closes it. hello is what the
	// guest sent so far if the flow was inspected; it will be read from guest
	// again. dial connects to where the guest wanted to go. It must return
	// when ctx ends.
	ServeStream(ctx context.Context, guest net.Conn, hello []byte, dial func(context.Context) (net.Conn, error))
}

// Rate is a limit in one direction. Zero fields are no limit.
type Rate struct {
	BytesPerSecond   int64 // of Ethernet frames
	PacketsPerSecond int64 // a large segment counts as the packets that it stands for
	// Burst is how long's worth may be sent at once after a pause; 100 ms if 0.
	Burst time.Duration
}

// Errors of this package, wrapped in an *OpError.
var (
	ErrConfig = errors.New("invalid configuration")
	ErrClosed = errors.New("network is closed")
	// ErrDenied says that the policy does not allow the flow.
	ErrDenied = errors.New("denied by the network policy")
	// ErrLimit says that there are too many flows.
	ErrLimit = errors.New("too many flows")
)

// OpError is the error type of this package.
type OpError struct {
	Op   string // "config", "listen", "dial", ...
	What string // the field or address
	Err  error
}

// Error says what was done to what.
func (e *OpError) Error() string {
	if e.What == "" {
		return fmt.Sprintf("netstack: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("netstack: %s %s: %v", e.Op, e.What, e.Err)
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// Addresses are what the guest has to be set up with.
type Addresses struct {
	MAC        [6]byte
	GatewayMAC [6]byte
	MTU        int
	// Guest4 and Gateway4 are not valid when IPv4 is not offered; likewise
	// Guest6 and Gateway6.
	Guest4, Guest6     netip.Prefix
	Gateway4, Gateway6 netip.Addr
}

// DNS lists the addresses where the guest's resolver should ask.
func (a Addresses) DNS() []netip.Addr {
	var s []netip.Addr
	for _, g := range []netip.Addr{a.Gateway4, a.Gateway6} {
		if g.IsValid() {
			s = append(s, g)
		}
	}
	return s
}

// IsHost reports whether an address that the guest uses stands for the host.
func (a Addresses) IsHost(ip netip.Addr) bool {
	return ip.IsValid() && (ip == a.Gateway4 || ip == a.Gateway6)
}

// HostFamilies reports for which address families the host has a route to the
// world. Nothing is sent to find out.
func HostFamilies() (v4, v6 bool) {
	probe := func(network, addr string) bool {
		c, err := net.Dial(network, addr)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	}
	// Addresses for documentation are routed as any other.
	return probe("udp4", "192.0.2.1:9"), probe("udp6", "[2001:db8::1]:9")
}

func (c Config) withDefaults() (Config, Addresses, error) {
	a := Addresses{MAC: GuestMAC, GatewayMAC: GatewayMAC}
	bad := func(field, format string, args ...any) (Config, Addresses, error) {
		return c, a, &OpError{"config", field, fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))}
	}
	if c.IPv4Pool == (netip.Prefix{}) {
		c.IPv4Pool = DefaultIPv4Pool
	}
	if c.IPv6Pool == (netip.Prefix{}) {
		c.IPv6Pool = DefaultIPv6Pool
	}
	if p := c.IPv4Pool; !p.IsValid() || !p.Addr().Is4() || p.Bits() > 30 || !usable(p.Addr()) {
		return bad("IPv4Pool", "%v: want a /30 or larger of unicast addresses", p)
	}
	if p := c.IPv6Pool; !p.IsValid() || !p.Addr().Is6() || p.Addr().Is4In6() || p.Bits() > 64 || !usable(p.Addr()) || p.Addr().IsLinkLocalUnicast() {
		return bad("IPv6Pool", "%v: want a /64 or larger of unicast addresses", p)
	}
	if c.MTU == 0 {
		c.MTU = vnet.DefaultMTU
	}
	if c.MTU < vnet.MinMTU || c.MTU > vnet.MaxMTU {
		return bad("MTU", "%d: want %d to %d", c.MTU, vnet.MinMTU, vnet.MaxMTU)
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.MaxConnections < 1 || c.MaxConnections > MaxConnections {
		return bad("MaxConnections", "%d: want 1 to %d", c.MaxConnections, MaxConnections)
	}
	if len(c.Hostname) > 255 {
		return bad("Hostname", "longer than 255 bytes")
	}
	for _, r := range []struct {
		name string
		r    *Rate
	}{{"Transmit", &c.Transmit}, {"Receive", &c.Receive}} {
		if r.r.BytesPerSecond < 0 || r.r.PacketsPerSecond < 0 || r.r.Burst < 0 {
			return bad(r.name, "must not be negative")
		}
	}
	v4, v6 := c.IPv4 == On, c.IPv6 == On
	if c.IPv4 == Auto || c.IPv6 == Auto {
		h4, h6 := HostFamilies()
		// A host that reaches nothing still has itself to offer.
		v4 = v4 || c.IPv4 == Auto && (h4 || !h6)
		v6 = v6 || c.IPv6 == Auto && h6
	}
	if c.IPv4 > Off || c.IPv6 > Off || !v4 && !v6 {
		return bad("IPv4, IPv6", "want at least one family")
	}
	a.MTU = c.MTU
	if v4 {
		net := c.IPv4Pool.Masked().Addr()
		a.Gateway4 = net.Next()
		a.Guest4 = netip.PrefixFrom(a.Gateway4.Next(), c.IPv4Pool.Bits())
	}
	if v6 {
		net := c.IPv6Pool.Masked().Addr()
		a.Gateway6 = net.Next()
		a.Guest6 = netip.PrefixFrom(a.Gateway6.Next(), c.IPv6Pool.Bits())
	}
	if c.DialTCP == nil {
		c.DialTCP = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.String())
		}
	}
	if c.DialUDP == nil {
		c.DialUDP = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "udp", to.String())
		}
	}
	return c, a, nil
}

// usable reports whether an address can be a party of a flow through the network.
// An address that the host's kernel would take for itself, in whatever disguise,
// is none: the host has the gateway's address.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		!a.Is4In6() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) &&
		!(a.Is4() && a.As4()[0] == 0) && !compatible4.Contains(a)
}

// compatible4 are the long deprecated IPv4-compatible addresses.
var compatible4 = netip.MustParsePrefix("::/96")
