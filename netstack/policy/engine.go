package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// MaxRules bounds a policy, for every flow walks its rules.
const MaxRules = 4096

// Engine evaluates a checked policy. It does not change and may be used from
// any goroutine.
type Engine struct {
	policy Policy
	host   func(netip.Addr) bool
}

// New checks p and makes an engine of a copy of it. host says which addresses
// are the host's own; it may be nil, must be fast and safe for concurrent use.
func New(p Policy, host func(netip.Addr) bool) (*Engine, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	return &Engine{policy: p.Clone(), host: host}, nil
}

// Policy is a copy of what the engine was made of.
func (e *Engine) Policy() Policy { return e.policy.Clone() }

// Clone copies a policy.
func (p Policy) Clone() Policy {
	p.Rules = slices.Clone(p.Rules)
	for i := range p.Rules {
		p.Rules[i].Ports = slices.Clone(p.Rules[i].Ports)
	}
	return p
}

// Check says what is wrong with a policy: a *[FieldError], or nil.
func (p Policy) Check() error {
	switch {
	case p.Egress > Allow:
		return &FieldError{"Egress", fmt.Sprint(uint8(p.Egress)), "want Allow or Deny"}
	case p.Ingress > Allow:
		return &FieldError{"Ingress", fmt.Sprint(uint8(p.Ingress)), "want Allow or Deny"}
	case p.NoNetwork && (len(p.Rules) > 0 || p.Egress == Allow || p.Ingress == Allow):
		return &FieldError{"NoNetwork", "true", "rules and defaults need a network"}
	case len(p.Rules) > MaxRules:
		return &FieldError{"Rules", fmt.Sprint(len(p.Rules)), fmt.Sprintf("more than %d rules", MaxRules)}
	}
	for i, r := range p.Rules {
		if err := r.check(fmt.Sprintf("Rules[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

// Check says what is wrong with a rule: a *[FieldError], or nil.
func (r Rule) Check() error { return r.check("Rule") }

func (r Rule) check(at string) error {
	bad := func(field, value, problem string) error { return &FieldError{at + field, value, problem} }
	switch {
	case r.Action > Allow:
		return bad(".Action", fmt.Sprint(uint8(r.Action)), "want Allow or Deny")
	case r.Direction > Any:
		return bad(".Direction", fmt.Sprint(uint8(r.Direction)), "want Egress, Ingress or Any")
	case r.Protos&^allProtos != 0:
		return bad(".Protos", fmt.Sprint(uint8(r.Protos)), "want a set of TCP, UDP and ICMP")
	case r.Protos == ICMP && len(r.Ports) > 0:
		return bad(".Ports", r.Ports[0].String(), "ICMP has no ports")
	case r.Destination.named() && r.Direction == Ingress:
		return bad(".Destination", r.Destination.String(), "a domain is no source of ingress")
	}
	if field, problem := r.Destination.check(); problem != "" {
		return bad(".Destination"+field, r.Destination.String(), problem)
	}
	for i, p := range r.Ports {
		if p.First == 0 || p.First > p.Last {
			return bad(fmt.Sprintf(".Ports[%d]", i), p.String(), "want 1 to 65535, the lower first")
		}
	}
	return nil
}

// matchPort tells whether direction, protocol and port of a rule fit a flow.
func (r *Rule) matchPort(f *Flow) bool {
	if r.Direction != Any && r.Direction != f.Direction {
		return false
	}
	if r.Protos != 0 && r.Protos&f.Proto == 0 {
		return false
	}
	if len(r.Ports) == 0 {
		return true
	}
	if f.Proto == ICMP {
		return false
	}
	for _, p := range r.Ports {
		if p.First <= f.Port && f.Port <= p.Last {
			return true
		}
	}
	return false
}

// matchAddr tells whether an address is that of a destination. A denial also
// holds for the IPv4 address that an IPv6 address leads to.
func (e *Engine) matchAddr(r *Rule, a netip.Addr) bool {
	switch d := &r.Destination; {
	case d.Group != 0:
		return GroupOf(a, e.host) == d.Group
	case d.Prefix.IsValid():
		if d.Prefix.Contains(a) {
			return true
		}
		v4, ok := embedded(a)
		return ok && r.Action == Deny && d.Prefix.Contains(v4)
	case d.named():
		return false
	}
	return true
}

// Evaluate decides about a flow.
//
// A domain that is allowed opens the addresses that DNS gave for it (Flow.Names),
// and when the guest speaks TLS with a name, that name has to be the domain's
// too. A domain that is denied is denied by either of the two alone. So what
// SNI says can only take away, and a denial never waits for it. Where addresses
// decide and only a denied domain is to be looked for, the flow need not wait to be
// connected (Decision.ConnectFirst); where a domain allows it, it does. QUIC is TLS
// whose name cannot be seen: where a domain would have to be told by it, it is
// denied, and clients fall back to TCP; a rule that names udp lets it pass.
// Other UDP and ICMP go by DNS alone. Ingress knows no domains.
//
// Names are to be resolved by the sandbox's own DNS, or the policy would not see
// them: DNS over TLS or QUIC, multicast DNS and LLMNR are denied (RuleDNS)
// unless a rule that names their port allows them.
func (e *Engine) Evaluate(f Flow) Decision {
	d := e.evaluate(f)
	if d.Allow && f.Direction == Egress && otherDNS(f.Proto, f.Port) && (d.Rule == NoRule || len(e.policy.Rules[d.Rule].Ports) == 0) {
		return Decision{Rule: RuleDNS}
	}
	return d
}

// otherDNS tells of ports at which names are resolved past the sandbox's DNS.
func otherDNS(p Proto, port uint16) bool {
	switch port {
	case 853: // over TLS (RFC 7858), DTLS and QUIC (RFC 9250)
		return p == TCP || p == UDP
	case 5353: // multicast
		return p == UDP
	case 5355: // LLMNR
		return p == TCP || p == UDP
	}
	return false
}

func (e *Engine) evaluate(f Flow) Decision {
	if f.Direction > Ingress || f.Proto != TCP && f.Proto != UDP && f.Proto != ICMP || !f.Addr.IsValid() {
		return Decision{Rule: NoRule}
	}
	f.Addr = Normal(f.Addr)
	need, quic := false, f.Proto == UDP && f.Port == quicPort && f.Direction == Egress
	hidden := NoRule // the first rule whose domain QUIC hides
	pending := f.Proto == TCP && f.Direction == Egress && !f.Inspected
	for i := range e.policy.Rules {
		r := &e.policy.Rules[i]
		if !r.matchPort(&f) {
			continue
		}
		if !r.Destination.named() {
			if e.matchAddr(r, f.Addr) {
				return decide(r.Action, i, need, hidden)
			}
			continue
		}
		if f.Direction == Ingress {
			continue
		}
		pinned := r.Destination.matchAny(f.Names)
		if r.Action == Deny {
			if pinned || f.SNI != "" && r.Destination.MatchName(f.SNI) {
				return decide(Deny, i, false, NoRule)
			}
			need = need || pending
			if quic && hidden == NoRule {
				hidden = i
			}
			continue
		}
		if pinned && (f.SNI == "" || r.Destination.MatchName(f.SNI)) {
			if quic && r.Protos&UDP == 0 {
				continue
			}
			d := decide(Allow, i, need || pending, hidden)
			d.ConnectFirst = false
			return d
		}
	}
	if f.Direction == Ingress {
		return decide(e.policy.Ingress, NoRule, need, hidden)
	}
	return decide(e.policy.Egress, NoRule, need, hidden)
}

// quicPort is where QUIC is looked for. Elsewhere it cannot be told from other UDP.
const quicPort = 443

// decide makes a decision that no name allows. An allowed flow is denied by the
// rule hidden, if there is one, because that could not be told to be about
// another domain.
func decide(a Action, rule int, need bool, hidden int) Decision {
	if a == Deny {
		return Decision{Rule: rule}
	}
	if hidden != NoRule {
		return Decision{Rule: hidden}
	}
	return Decision{Allow: true, Rule: rule, NeedSNI: need, ConnectFirst: need}
}

// Name tells whether a name may be resolved, and which rule says so (NoRule:
// the default). A name of which no rule could ever make use is denied, so that
// a policy that names domains only does not let data out by way of DNS.
func (e *Engine) Name(name string) (allow bool, rule int) {
	for i := range e.policy.Rules {
		r := &e.policy.Rules[i]
		if r.Direction == Ingress {
			continue
		}
		if r.Destination.named() {
			if !r.Destination.MatchName(name) {
				continue
			}
		} else if r.Action == Deny && (r.Destination != Destination{}) {
			continue // other addresses are left
		}
		if r.Action == Allow {
			return true, i
		}
		if r.everyPort() {
			return false, i
		}
	}
	return e.policy.Egress == Allow, NoRule
}

// Denies tells whether a rule denies a name as such. Names that Name denies
// because nothing allows them are not meant: an allowed name may be an alias of one.
func (e *Engine) Denies(name string) bool {
	allow, rule := e.Name(name)
	return !allow && rule != NoRule && e.policy.Rules[rule].Destination.named()
}

// everyPort tells whether the rule holds for all protocols and ports.
func (r *Rule) everyPort() bool {
	return (r.Protos == 0 || r.Protos == allProtos) && len(r.Ports) == 0
}

// Reachable tells whether a rule about addresses, or the default, lets the
// guest reach some port of an address, whatever its name.
func (e *Engine) Reachable(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	a = Normal(a)
	for i := range e.policy.Rules {
		r := &e.policy.Rules[i]
		if r.Direction == Ingress || r.Destination.named() || !e.matchAddr(r, a) {
			continue
		}
		if r.Action == Allow {
			return true
		}
		if r.everyPort() {
			return false
		}
	}
	return e.policy.Egress == Allow
}

// Group tells which group an address is in.
func (e *Engine) Group(a netip.Addr) Group { return GroupOf(a, e.host) }
