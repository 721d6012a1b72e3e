package main

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

// networkFlags are the flags about the network.
type networkFlags struct {
	ports, rules, dns []string
	preset, rate      string
	maxConnections    int
}

func (f *networkFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringArrayVarP(&f.ports, "publish", "p", nil, "publish a port: [ADDRESS:]HOST:GUEST[/udp]; address 127.0.0.1 unless given, HOST 0 or none picks a free port; what it is is printed")
	fl.StringVar(&f.preset, "net", "public", "what the guest may reach: none, public, non-local or allow-all")
	fl.StringArrayVar(&f.rules, "net-rule", nil, "rule before those of --net, in this order: allow|deny[:egress|ingress|any]@DESTINATION[:PROTOCOLS[:PORTS]],\n"+
		"such as allow@api.example.com:tcp:443, deny@.example.org, allow@10.0.0.0/8, allow@host:tcp:5432")
	fl.StringArrayVar(&f.dns, "dns", nil, "upstream resolver, address or name with an optional port, asked in this order (default: the host's)")
	fl.IntVar(&f.maxConnections, "max-connections", 0, "TCP connections of the guest at once, 1 to 4096 (default 256)")
	fl.StringVar(&f.rate, "net-rate", "", "limit of each direction, such as 10MB/s or 100Mbit/s; or up=RATE,down=RATE")
}

// options turns the flags into options of the SDK.
func (f *networkFlags) options() ([]sandbox.Option, error) {
	policy, err := sandbox.NetworkPreset(f.preset)
	if err != nil {
		return nil, fmt.Errorf("--net: %w", err)
	}
	var rules []sandbox.NetworkRule
	for _, s := range f.rules {
		r, err := sandbox.ParseNetworkRule(s)
		if err != nil {
			return nil, fmt.Errorf("--net-rule %s: %w", s, err)
		}
		rules = append(rules, r)
	}
	opts := []sandbox.Option{
		sandbox.WithNetwork(policy.WithRules(rules...)), sandbox.WithMaxConnections(f.maxConnections),
		sandbox.WithDNS(sandbox.DNSConfig{Nameservers: f.dns}),
	}
	for _, s := range f.ports {
		b, err := parsePort(s)
		if err != nil {
			return nil, err
		}
		opts = append(opts, sandbox.WithPortBindings(b))
	}
	if f.rate != "" {
		up, down, err := parseRates(f.rate)
		if err != nil {
			return nil, err
		}
		opts = append(opts, sandbox.WithNetworkRate(up, down))
	}
	return opts, nil
}

// parsePort parses [[ADDRESS:]HOST:]GUEST[/tcp|/udp].
func parsePort(s string) (b sandbox.PortBinding, err error) {
	bad := func(why string) (sandbox.PortBinding, error) {
		return sandbox.PortBinding{}, fmt.Errorf("--publish %s: %s; want [ADDRESS:]HOST:GUEST[/udp]", s, why)
	}
	rest, proto, _ := strings.Cut(s, "/")
	switch proto {
	case "", "tcp":
	case "udp":
		b.UDP = true
	default:
		return bad("the protocol is tcp or udp")
	}
	number := func(s string, least uint64) (uint16, bool) {
		n, err := strconv.ParseUint(s, 10, 16)
		return uint16(n), err == nil && n >= least
	}
	var ok bool
	i := strings.LastIndexByte(rest, ':')
	if b.Guest, ok = number(rest[i+1:], 1); !ok {
		return bad("the guest's port is a number from 1 to 65535")
	}
	if i < 0 {
		return b, nil
	}
	rest = rest[:i]
	i = strings.LastIndexByte(rest, ':')
	if rest[i+1:] != "" || i < 0 {
		if b.Host, ok = number(rest[i+1:], 0); !ok {
			return bad("the host's port is a number from 0 to 65535")
		}
	}
	if i < 0 {
		return b, nil
	}
	address := rest[:i]
	if inner, is := strings.CutPrefix(address, "["); is {
		if address, ok = strings.CutSuffix(inner, "]"); !ok {
			return bad("no closing bracket")
		}
	}
	if b.Address, err = netip.ParseAddr(address); err != nil {
		return bad("the address is not one (IPv6 in brackets)")
	}
	return b, nil
}

// parseRates parses RATE, or up=RATE and down=RATE with a comma between.
func parseRates(s string) (up, down sandbox.NetworkRate, err error) {
	if !strings.Contains(s, "=") {
		n, err := parseRate(s)
		return sandbox.NetworkRate{BytesPerSecond: n}, sandbox.NetworkRate{BytesPerSecond: n}, err
	}
	for part := range strings.SplitSeq(s, ",") {
		which, value, _ := strings.Cut(part, "=")
		n, err := parseRate(value)
		if err != nil {
			return up, down, err
		}
		switch which {
		case "up":
			up.BytesPerSecond = n
		case "down":
			down.BytesPerSecond = n
		default:
			return up, down, fmt.Errorf("--net-rate %s: want up=RATE or down=RATE", part)
		}
	}
	return up, down, nil
}

// rateUnits are bytes in the unit; k, M and G are powers of 1000, Ki and so on of 1024.
var rateUnits = map[string]float64{
	"b/s": 1, "kb/s": 1e3, "mb/s": 1e6, "gb/s": 1e9, "kib/s": 1 << 10, "mib/s": 1 << 20, "gib/s": 1 << 30,
	"bit/s": 1.0 / 8, "kbit/s": 1e3 / 8, "mbit/s": 1e6 / 8, "gbit/s": 1e9 / 8,
}

func parseRate(s string) (int64, error) {
	number := strings.TrimRight(s, "kKmMgGiIbBtT/sS")
	unit, ok := rateUnits[strings.ToLower(s[len(number):])]
	n, err := strconv.ParseFloat(number, 64)
	if n *= unit; !ok || err != nil || !(n >= 1) || n >= math.MaxInt64 {
		return 0, fmt.Errorf("--net-rate %s: want a rate such as 10MB/s, 512KiB/s or 100Mbit/s", s)
	}
	return int64(n), nil
}
