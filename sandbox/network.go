package sandbox

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/netstack"
	"github.com/hutchvm/hutch/netstack/dns"
	"github.com/hutchvm/hutch/netstack/policy"
)

// networkConfig is what the options say about the network.
type networkConfig struct {
	Policy         *NetworkPolicy  `json:"policy,omitempty"` // nil is NetworkPublic
	DNS            DNSConfig       `json:"dns,omitzero"`
	Ports          []PortBinding   `json:"ports,omitempty"`
	IPv4Pool       netip.Prefix    `json:"ipv4_pool,omitzero"`
	IPv6Pool       netip.Prefix    `json:"ipv6_pool,omitzero"`
	MaxConnections int             `json:"max_connections,omitempty"`
	Transmit       NetworkRate     `json:"transmit,omitzero"`
	Receive        NetworkRate     `json:"receive,omitzero"`
	FlowLog        func(FlowEvent) `json:"-"`
	DNSLog         func(DNSQuery)  `json:"-"`
}

// policy is the network's policy.
func (n *networkConfig) policy() NetworkPolicy {
	if n.Policy == nil {
		return NetworkPublic()
	}
	return *n.Policy
}

// stack is the configuration of the network itself, without what decides.
func (n *networkConfig) stack() netstack.Config {
	return netstack.Config{
		IPv4Pool: n.IPv4Pool, IPv6Pool: n.IPv6Pool, MaxConnections: n.MaxConnections,
		Transmit: n.Transmit.rate(), Receive: n.Receive.rate(), FlowLog: n.FlowLog,
	}
}

func (c *config) checkNetwork() error {
	n := &c.Network
	p := n.policy()
	if err := p.Check(); err != nil {
		return fmt.Errorf("%w: WithNetwork: %w: %w", ErrInvalidConfig, ErrNetworkPolicy, err)
	}
	d := n.DNS.proxy()
	if err := d.Check(); err != nil {
		return fmt.Errorf("%w: WithDNS: %w", ErrInvalidConfig, err)
	}
	for _, s := range n.DNS.Search {
		if err := policy.ToDomain(s).CheckName(); err != nil {
			return fmt.Errorf("%w: WithDNS: Search: %w", ErrInvalidConfig, err)
		}
	}
	if n.IPv4Pool.IsValid() && (!n.IPv4Pool.Addr().Is4() || n.IPv4Pool.Bits() > 30) {
		return invalid("WithIPv4Pool", "%v: want an IPv4 network of a /30 or larger", n.IPv4Pool)
	}
	if n.IPv6Pool.IsValid() && (!n.IPv6Pool.Addr().Is6() || n.IPv6Pool.Addr().Is4In6() || n.IPv6Pool.Bits() > 64) {
		return invalid("WithIPv6Pool", "%v: want an IPv6 network of a /64 or larger", n.IPv6Pool)
	}
	if n.MaxConnections < 0 || n.MaxConnections > netstack.MaxConnections {
		return invalid("WithMaxConnections", "%d, want 1 to %d", n.MaxConnections, netstack.MaxConnections)
	}
	for _, r := range []NetworkRate{n.Transmit, n.Receive} {
		if r.BytesPerSecond < 0 || r.PacketsPerSecond < 0 || r.Burst < 0 {
			return invalid("WithNetworkRate", "%+v: negative", r)
		}
	}
	return n.checkPorts(p.NoNetwork)
}

// network is the network of a running sandbox.
type network struct {
	stack *netstack.Stack
	ports []PortBinding // with the host's ports as they are
}

// addNetwork adds the network card and opens the published ports.
func (d *devices) addNetwork(c *config) error {
	n := &c.Network
	p := n.policy()
	if p.NoNetwork {
		return nil
	}
	// The policy and DNS know the guest's names for the gateway, which only the
	// network knows; nothing asks before its card is in a machine.
	dec := &decider{host: hostAddrs{gateway: map[netip.Addr]bool{}}}
	engine, err := policy.New(p, dec.host.is)
	if err != nil {
		return fmt.Errorf("%w: WithNetwork: %w: %w", ErrInvalidConfig, ErrNetworkPolicy, err)
	}
	dec.engine = engine
	resolver := &lateDNS{}
	cfg := n.stack()
	cfg.Decide, cfg.DNS = dec.decide, resolver
	stack, err := netstack.New(cfg)
	if err != nil {
		return fmt.Errorf("%w: network: %w", ErrInvalidConfig, err)
	}
	d.onClose(stack.Close)
	addrs := stack.Addresses()
	for _, g := range []netip.Addr{addrs.Gateway4, addrs.Gateway6} {
		if g.IsValid() {
			dec.host.gateway[g] = true
		}
	}
	dc := n.DNS.proxy()
	dc.Policy, dc.Log = engine, n.DNSLog
	dc.Gateway4, dc.Gateway6 = addrs.Gateway4, addrs.Gateway6
	dc.NoIPv4, dc.NoIPv6 = !addrs.Gateway4.IsValid(), !addrs.Gateway6.IsValid()
	if dec.dns, err = dns.New(dc); err != nil {
		return fmt.Errorf("%w: WithDNS: %w", ErrInvalidConfig, err)
	}
	resolver.Proxy = dec.dns
	d.net = &network{stack: stack}
	if err := d.net.publish(n.Ports); err != nil {
		return err
	}
	d.add("network", stack.Device())
	return nil
}

// lateDNS is a DNS proxy that is set after the network was made.
type lateDNS struct{ *dns.Proxy }

// decider answers the network's questions about flows.
type decider struct {
	engine *policy.Engine
	dns    *dns.Proxy
	host   hostAddrs
}

func (d *decider) decide(f policy.Flow) policy.Decision {
	if f.Direction == policy.Egress {
		f.Names = d.dns.Names(f.Addr)
	}
	return d.engine.Evaluate(f)
}

// hostAddrsFor is how long the list of the host's addresses is good.
const hostAddrsFor = 5 * time.Second

// hostAddrs knows which addresses are the host's: the gateway's, and those of
// its interfaces. Loopback addresses are a group of their own.
type hostAddrs struct {
	gateway map[netip.Addr]bool // constant

	mu    sync.Mutex
	own   map[netip.Addr]bool
	until time.Time
}

func (h *hostAddrs) is(a netip.Addr) bool {
	if h.gateway[a] {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.After(h.until) {
		h.until = now.Add(hostAddrsFor)
		if list, err := net.InterfaceAddrs(); err == nil {
			h.own = make(map[netip.Addr]bool, len(list))
			for _, n := range list {
				if ipn, ok := n.(*net.IPNet); ok {
					if a, ok := netip.AddrFromSlice(ipn.IP); ok && !a.IsLoopback() {
						h.own[policy.Normal(a)] = true
					}
				}
			}
		}
	}
	return h.own[a]
}

// setup is what the agent is told about the network card.
func (n *network) setup(c *config) (m proto.Network) {
	if n == nil {
		return m
	}
	a := n.stack.Addresses()
	m.MAC, m.GatewayMAC = net.HardwareAddr(a.MAC[:]).String(), net.HardwareAddr(a.GatewayMAC[:]).String()
	m.MTU = uint32(a.MTU)
	for _, p := range []netip.Prefix{a.Guest4, a.Guest6} {
		if p.IsValid() {
			m.Addresses = append(m.Addresses, p.String())
		}
	}
	for _, g := range []netip.Addr{a.Gateway4, a.Gateway6} {
		if g.IsValid() {
			m.Gateways = append(m.Gateways, g.String())
		}
	}
	// One is enough, since it always answers; some resolvers would ask each.
	m.Nameservers = m.Gateways[:1]
	if m.Search = c.Network.DNS.Search; m.Search == nil {
		m.Search = dns.Search(c.Network.DNS.ResolvConf)
	}
	return m
}

// NetworkStats are the counters of the sandbox's network since it came up. They
// are zero without a network.
func (s *Sandbox) NetworkStats() NetworkStats {
	if s.devices.net == nil {
		return NetworkStats{}
	}
	return s.devices.net.stack.Stats()
}
