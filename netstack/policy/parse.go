package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// MaxRuleText bounds the text of a rule.
const MaxRuleText = 4096

// ParseRule reads a rule:
//
//	action[:direction]@destination[:protocols[:ports]]
//
// The action is allow or deny. The direction is egress (when it is left out),
// ingress or any. The destination is any or *, an address, a network, a domain,
// .suffix or *.suffix, or a group: public, private, loopback, link-local,
// metadata, multicast, host. IPv6 addresses and networks that something follows
// stand in brackets. Protocols are any or *, or tcp, udp and icmp with commas
// between; ports are numbers and ranges such as 8000-8099 with commas between.
// For example:
//
//	allow@api.example.com:tcp:443
//	deny@.example.org
//	allow@10.0.0.0/8:udp:53-60
//	deny:ingress@[2001:db8::/32]:tcp:22,80
func ParseRule(s string) (Rule, error) {
	var r Rule
	bad := func(field, value, problem string) (Rule, error) { return Rule{}, &FieldError{field, value, problem} }
	if len(s) > MaxRuleText {
		return bad("rule", s[:32]+"…", "longer than 4096 bytes")
	}
	head, rest, ok := strings.Cut(s, "@")
	if !ok {
		return bad("rule", s, "want action@destination")
	}
	action, direction, directed := strings.Cut(head, ":")
	switch action {
	case "allow":
		r.Action = Allow
	case "deny":
	default:
		return bad("action", action, "want allow or deny")
	}
	switch {
	case !directed, direction == "egress":
	case direction == "ingress":
		r.Direction = Ingress
	case direction == "any":
		r.Direction = Any
	default:
		return bad("direction", direction, "want egress, ingress or any")
	}
	dest, rest, more, problem := cutDestination(rest)
	if problem == "" {
		r.Destination, problem = parseDestination(dest)
	}
	if problem != "" {
		return bad("destination", dest, problem)
	}
	if more {
		protos, ports, numbered := strings.Cut(rest, ":")
		if r.Protos, ok = parseProtos(protos); !ok {
			return bad("protocol", protos, "want tcp, udp, icmp or any")
		}
		if numbered {
			if r.Ports, ok = parsePorts(ports); !ok {
				return bad("ports", ports, "want numbers from 1 to 65535 and ranges of them")
			}
		}
	}
	if err := r.Check(); err != nil {
		return Rule{}, err
	}
	return r, nil
}

// cutDestination cuts the destination off the front of the rest of a rule.
func cutDestination(s string) (dest, rest string, more bool, problem string) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		dest, rest, ok = strings.Cut(inner, "]")
		if !ok {
			return s, "", false, "no closing bracket"
		}
		if !strings.Contains(dest, ":") {
			return dest, "", false, "brackets are for IPv6"
		}
		if rest == "" {
			return dest, "", false, ""
		}
		if rest, ok = strings.CutPrefix(rest, ":"); !ok {
			return dest, "", false, "text after the bracket"
		}
		return dest, rest, true, ""
	}
	if strings.Count(s, ":") >= 2 {
		// IPv6 without brackets, when it is that and nothing else.
		if _, ok := parsePrefix(s); ok {
			return s, "", false, ""
		}
	}
	dest, rest, more = strings.Cut(s, ":")
	return dest, rest, more, ""
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p, err == nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), true
}

func parseDestination(s string) (Destination, string) {
	if s == "" {
		return Destination{}, "empty"
	}
	if s == "any" || s == "*" {
		return Anywhere(), ""
	}
	if g, ok := parseGroup(s); ok {
		return ToGroup(g), ""
	}
	if p, ok := parsePrefix(s); ok {
		d := ToPrefix(p)
		_, problem := d.check()
		return d, problem
	}
	if strings.ContainsAny(s, "/:") {
		return Destination{}, "not an address or network"
	}
	d := ToDomain(s)
	if rest, ok := strings.CutPrefix(s, "*"); ok {
		s = rest
	}
	if strings.HasPrefix(s, ".") {
		if d = ToSuffix(s); d.Suffix == "" {
			return d, "empty suffix"
		}
	} else if d.Domain == "" {
		return d, "empty name"
	}
	_, problem := d.check()
	return d, problem
}

func parseProtos(s string) (Proto, bool) {
	if s == "any" || s == "*" {
		return 0, true
	}
	var set Proto
next:
	for name := range strings.SplitSeq(s, ",") {
		for _, n := range protoNames {
			if n.name == name {
				set |= n.p
				continue next
			}
		}
		return 0, false
	}
	return set, true
}

func parsePorts(s string) ([]PortRange, bool) {
	var list []PortRange
	for item := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(item, "-")
		if !isRange {
			hi = lo
		}
		first, ok1 := parsePort(lo)
		last, ok2 := parsePort(hi)
		if !ok1 || !ok2 || first > last {
			return nil, false
		}
		list = append(list, PortRange{first, last})
	}
	return list, true
}

func parsePort(s string) (uint16, bool) {
	if s == "" || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// String writes the rule as ParseRule reads it.
func (r Rule) String() string {
	s := r.Action.String()
	if r.Direction != Egress {
		s += ":" + r.Direction.String()
	}
	s += "@" + r.Destination.String()
	if r.Protos == 0 && len(r.Ports) == 0 {
		return s
	}
	if r.Protos == 0 {
		s += ":any"
	} else {
		s += ":" + r.Protos.String()
	}
	for i, p := range r.Ports {
		sep := ","
		if i == 0 {
			sep = ":"
		}
		s += sep + p.String()
	}
	return s
}
