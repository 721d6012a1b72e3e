package sandbox

import (
	"net/netip"
	"time"

	"github.com/hutchvm/hutch/netstack"
	"github.com/hutchvm/hutch/netstack/dns"
	"github.com/hutchvm/hutch/netstack/policy"
)

// The network policy and its parts; see package netstack/policy for what they mean.
type (
	// NetworkPolicy is an ordered list of rules, with a default for each direction.
	NetworkPolicy = policy.Policy
	// NetworkRule allows or denies flows.
	NetworkRule = policy.Rule
	// FlowEvent tells of one flow: who connected where, and what became of it.
	// Its Rule is an index into the policy's rules.
	FlowEvent = netstack.FlowEvent
	// NetworkStats are counters of one sandbox's network.
	NetworkStats = netstack.Stats
	// DNSQuery tells of one query of the guest's.
	DNSQuery = dns.Query
)

// What a FlowEvent is about.
const (
	FlowOpened = netstack.FlowOpened // allowed, and the other end answered
	FlowDenied = netstack.FlowDenied // refused by the policy
	FlowFailed = netstack.FlowFailed // allowed, but the other end could not be reached
	FlowClosed = netstack.FlowClosed // an opened flow ended
)

// NetworkNone is no network at all: the guest has no network card.
func NetworkNone() NetworkPolicy { return policy.None() }

// NetworkPublic is the default: DNS and public addresses. Private, link-local,
// metadata and the host's addresses are denied. Published ports are open.
func NetworkPublic() NetworkPolicy { return policy.Public() }

// NetworkNonLocal is NetworkPublic and private networks, carrier-grade NAT included.
func NetworkNonLocal() NetworkPolicy { return policy.NonLocal() }

// NetworkAllowAll lets the guest reach everything that the host reaches, and the
// host itself.
func NetworkAllowAll() NetworkPolicy { return policy.AllowAll() }

// NetworkPreset is one of these by name: "none", "public", "non-local" or "allow-all".
func NetworkPreset(name string) (NetworkPolicy, error) { return policy.Preset(name) }

// ParseNetworkRule reads a rule such as "allow@api.example.com:tcp:443",
// "deny@.example.org", "allow@10.0.0.0/8:udp:53-60" or "deny:ingress@private":
//
//	action[:direction]@destination[:protocols[:ports]]
//
// A destination is any, an address or network (IPv6 in brackets), a domain,
// .suffix, or a group: public, private, loopback, link-local, metadata,
// multicast, host.
func ParseNetworkRule(s string) (NetworkRule, error) { return policy.ParseRule(s) }

// WithNetwork sets what the guest may reach, and who may reach it by published
// ports: the first rule that matches a flow decides, with no match the default
// of its direction. Denied TCP is refused at once. A rule about a domain opens
// the addresses that DNS gave the guest for it, and where the guest speaks TLS
// its server name has to agree; a denied domain is also denied by that name
// alone. The default is [NetworkPublic].
func WithNetwork(p NetworkPolicy) Option {
	p = p.Clone()
	return func(c *config) { c.Network.Policy = &p }
}

// DNSConfig says how the guest's names are resolved. The guest's resolver is
// the network's gateway, and every query to port 53 of any address is answered
// there, on the host's side.
type DNSConfig struct {
	// Nameservers are asked in this order: an address or host name, each with an
	// optional port ("10.0.0.53", "[fd00::53]:5353", "dns.example.com:53"). None
	// means those of the host's /etc/resolv.conf.
	Nameservers []string `json:"nameservers,omitempty"`
	// Timeout is how long a query may take in all; 0 is 5 s. Then it fails.
	Timeout time.Duration `json:"timeout_ns,omitempty"`
	// AllowRebind lets names resolve to private and other local addresses that no
	// rule about addresses allows. Otherwise such names do not exist.
	AllowRebind bool `json:"allow_rebind,omitempty"`
	// Search are the guest's search domains; nil means the host's.
	Search []string `json:"search,omitempty"`
	// ResolvConf and Hosts are read instead of the host's /etc/resolv.conf and
	// /etc/hosts.
	ResolvConf string `json:"resolv_conf,omitempty"`
	Hosts      string `json:"hosts,omitempty"`
}

func (d *DNSConfig) proxy() dns.Config {
	return dns.Config{Servers: d.Nameservers, Timeout: d.Timeout, AllowRebind: d.AllowRebind, ResolvConf: d.ResolvConf, Hosts: d.Hosts}
}

// WithDNS sets how names are resolved. The default is as the host does, within 5 s.
func WithDNS(d DNSConfig) Option { return func(c *config) { c.Network.DNS = d } }

// WithIPv4Pool sets where the guest's IPv4 address comes from: a /30 or larger,
// of which the first address is the gateway's and the second the guest's. The
// default is the same in every sandbox, for each has a network of its own.
func WithIPv4Pool(p netip.Prefix) Option { return func(c *config) { c.Network.IPv4Pool = p } }

// WithIPv6Pool is WithIPv4Pool for IPv6: a /64 or larger. The guest has IPv6
// when the host has a route for it.
func WithIPv6Pool(p netip.Prefix) Option { return func(c *config) { c.Network.IPv6Pool = p } }

// WithMaxConnections bounds the TCP connections that the guest has at once, 1 to
// 4096; more wait. The default, also by 0, is 256.
func WithMaxConnections(n int) Option { return func(c *config) { c.Network.MaxConnections = n } }

// NetworkRate is a limit in one direction. Zero fields are no limit.
type NetworkRate struct {
	BytesPerSecond   int64 `json:"bytes_per_second,omitempty"` // of Ethernet frames
	PacketsPerSecond int64 `json:"packets_per_second,omitempty"`
	// Burst is how long's worth may pass at once after a pause; 0 is 100 ms.
	Burst time.Duration `json:"burst_ns,omitempty"`
}

func (r NetworkRate) rate() netstack.Rate {
	return netstack.Rate{BytesPerSecond: r.BytesPerSecond, PacketsPerSecond: r.PacketsPerSecond, Burst: r.Burst}
}

// WithNetworkRate limits what the guest sends and what it receives. The default
// is no limit.
func WithNetworkRate(transmit, receive NetworkRate) Option {
	return func(c *config) { c.Network.Transmit, c.Network.Receive = transmit, receive }
}

// WithFlowLog has f told of every flow: opened, denied, failed, closed. f must
// return soon and may be called from any goroutine; what the guest does decides
// how often. It is not saved: Start needs it again.
func WithFlowLog(f func(FlowEvent)) Option { return func(c *config) { c.Network.FlowLog = f } }

// WithDNSLog has f told of every DNS query of the guest's and how it was
// answered, under the conditions of WithFlowLog.
func WithDNSLog(f func(DNSQuery)) Option { return func(c *config) { c.Network.DNSLog = f } }
