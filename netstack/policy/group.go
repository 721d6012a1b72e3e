package policy

import "net/netip"

// Group is a class of addresses. Each address is in exactly one.
type Group uint8

// The groups, in the order in which an address is tried: the first that has it
// is the address's group.
const (
	// GroupHost is the machine that the sandbox runs on, by any of its addresses
	// and by the gateway's.
	GroupHost Group = iota + 1
	// GroupMetadata is the cloud providers' metadata and credential services.
	GroupMetadata
	// GroupLoopback also has 0.0.0.0/8 and ::, which Linux takes for itself.
	GroupLoopback
	// GroupPrivate is RFC 1918, carrier-grade NAT, unique local addresses, and
	// everything else that IANA lists as not globally reachable.
	GroupPrivate
	GroupLinkLocal
	// GroupMulticast also has the limited broadcast address.
	GroupMulticast
	// GroupPublic is what is left.
	GroupPublic
)

var groupNames = [...]string{GroupHost: "host", GroupMetadata: "metadata", GroupLoopback: "loopback", GroupPrivate: "private",
	GroupLinkLocal: "link-local", GroupMulticast: "multicast", GroupPublic: "public"}

func (g Group) valid() bool { return g >= GroupHost && g <= GroupPublic }

func (g Group) String() string {
	if !g.valid() {
		return "unknown"
	}
	return groupNames[g]
}

func parseGroup(s string) (Group, bool) {
	for g := GroupHost; g <= GroupPublic; g++ {
		if groupNames[g] == s {
			return g, true
		}
	}
	return 0, false
}

func prefixes(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, s := range list {
		all[i] = netip.MustParsePrefix(s)
	}
	return all
}

// ranges are the fixed ranges of the groups, in order of precedence.
var ranges = []struct {
	group Group
	in    []netip.Prefix
}{
	{GroupMetadata, prefixes(
		"169.254.169.254/32", // nearly everybody
		"169.254.169.253/32", // the resolver of Amazon's networks
		"169.254.170.2/32",   // credentials of Amazon's containers
		"169.254.170.23/32",  // and of its pods
		"100.100.100.200/32", // Alibaba
		"168.63.129.16/32",   // Azure, a public address
		"192.0.0.192/32",     // Oracle
		"fd00:ec2::254/128",  // Amazon
		"fd00:ec2::253/128",
		"fd00:ec2::23/128",
		"fd20:ce::254/128", // Google
	)},
	{GroupLoopback, prefixes("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")},
	{GroupPrivate, prefixes(
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // RFC 1918
		"100.64.0.0/10",                 // carrier-grade NAT
		"192.0.0.0/24", "198.18.0.0/15", // protocol assignments, benchmarks
		"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation
		"192.88.99.0/24",        // the former 6to4 relays
		"240.0.0.0/4",           // reserved; the broadcast address was looked at before
		"fc00::/7", "fec0::/10", // unique local, the former site-local
		"64:ff9b:1::/48",             // local NAT64
		"100::/64", "100:0:0:1::/64", // discard, dummy
		"2001::/23",                  // Teredo, benchmarks, ORCHID and further protocol assignments
		"2001:db8::/32", "3fff::/20", // documentation
		"5f00::/16", // segment routing
	)},
	{GroupLinkLocal, prefixes("169.254.0.0/16", "fe80::/10")},
	{GroupMulticast, prefixes("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")},
}

var (
	broadcast = netip.MustParseAddr("255.255.255.255")
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
	v4Compat  = netip.MustParsePrefix("::/96")
)

// Normal is the form of an address that is compared: an IPv4 address that was
// written as an IPv6 one is an IPv4 address, and zones are dropped.
func Normal(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// embedded is the IPv4 address that an IPv6 address leads to by way of a
// translator or tunnel. Teredo's are not looked into: they are private as a whole.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case v4Compat.Contains(a) && !a.IsLoopback() && !a.IsUnspecified():
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return netip.Addr{}, false
}

// GroupOf tells which group an address is in. host, which may be nil, says
// which addresses are the host's. An IPv6 address with an IPv4 address in it
// (mapped, NAT64, 6to4) is in the group of that.
func GroupOf(a netip.Addr, host func(netip.Addr) bool) Group {
	a = Normal(a)
	if host != nil && host(a) {
		return GroupHost
	}
	if v4, ok := embedded(a); ok {
		return GroupOf(v4, host)
	}
	if a == broadcast {
		return GroupMulticast
	}
	for _, r := range ranges {
		for _, p := range r.in {
			if p.Contains(a) {
				return r.group
			}
		}
	}
	return GroupPublic
}
