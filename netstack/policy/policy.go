// Package policy decides which network flows a sandbox may have. It is pure:
// it opens nothing, resolves nothing and keeps no state.
//
// A [Policy] is an ordered list of rules and a default for each direction. The
// first rule that matches a [Flow] decides; with no match the direction's
// default does. [New] checks a policy and makes an [Engine] of it.
package policy

import (
	"errors"
	"fmt"
	"net/netip"
)

// Action is what happens to a flow.
type Action uint8

// The actions. The zero value denies.
const (
	Deny  Action = 0
	Allow Action = 1
)

func (a Action) String() string {
	if a == Allow {
		return "allow"
	}
	return "deny"
}

// Direction is who opened the flow. A rule may hold for both.
type Direction uint8

// The directions. The zero value is egress.
const (
	Egress  Direction = 0 // the guest opened it
	Ingress Direction = 1 // it comes in by a published port
	Any     Direction = 2 // rules only: both
)

func (d Direction) String() string {
	switch d {
	case Ingress:
		return "ingress"
	case Any:
		return "any"
	}
	return "egress"
}

// Proto is a set of protocols; a flow has exactly one. The zero value of a
// rule's set stands for all.
type Proto uint8

// The protocols.
const (
	TCP  Proto = 1 << 0
	UDP  Proto = 1 << 1
	ICMP Proto = 1 << 2 // echo, of IPv4 and IPv6

	allProtos = TCP | UDP | ICMP
)

var protoNames = []struct {
	p    Proto
	name string
}{{TCP, "tcp"}, {UDP, "udp"}, {ICMP, "icmp"}}

func (p Proto) String() string {
	s := ""
	for _, n := range protoNames {
		if p&n.p != 0 {
			if s != "" {
				s += ","
			}
			s += n.name
		}
	}
	return s
}

// PortRange is the ports First to Last, both included.
type PortRange struct{ First, Last uint16 }

func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Rule allows or denies flows.
type Rule struct {
	Action    Action
	Direction Direction
	// Destination is the other end: where an egress flow goes, where an ingress
	// flow comes from.
	Destination Destination
	// Protos is a set of protocols; 0 is all.
	Protos Proto
	// Ports are the ports that the flow goes to: the peer's of an egress flow,
	// the guest's of an ingress flow. None means all. ICMP has no ports: a rule
	// with ports does not match it.
	Ports []PortRange
}

// Policy is an ordered list of rules. Its zero value denies everything.
type Policy struct {
	Rules []Rule `json:"rules,omitempty"`
	// Egress and Ingress are what happens to a flow that no rule matches.
	Egress  Action `json:"egress"`
	Ingress Action `json:"ingress"`
	// NoNetwork means that there is no network device at all. It excludes rules.
	NoNetwork bool `json:"no_network,omitempty"`
}

// Flow is what is asked about: one TCP connection, one UDP flow, one ICMP echo.
type Flow struct {
	Direction Direction // Egress or Ingress
	Proto     Proto     // one of TCP, UDP, ICMP
	Addr      netip.Addr
	Port      uint16
	// Names are the domain names for which DNS really answered Addr, and whose
	// time to live is not over.
	Names []string
	// Inspected says that the first bytes of the flow were looked at, so that
	// SNI is final: empty means that it is no TLS, or TLS without a name.
	Inspected bool
	SNI       string
}

// What Decision.Rule is when no rule of the policy decided.
const (
	NoRule  = -1 // the direction's default did
	RuleDNS = -2 // a way to resolve names past the sandbox's DNS, which no rule names
)

// Decision is what a policy says to a flow.
type Decision struct {
	Allow bool
	// Rule is the index of the rule that decided, NoRule or RuleDNS.
	Rule int
	// NeedSNI says that Allow is true only for now: a rule before the deciding
	// one, or the deciding one, depends on the name in the TLS ClientHello.
	// Nothing that the guest sends may be passed on before the flow was
	// inspected and evaluated again with Inspected set. A denial is final.
	NeedSNI bool
	// ConnectFirst comes with NeedSNI only. It says that an address rule or the
	// default allows the flow, so that all that a name can do is deny it: the
	// other end may be connected to, and what it sends passed on, before the
	// flow was inspected. Without it the other end must not notice anything.
	ConnectFirst bool
}

// ErrInvalid matches every error about a policy.
var ErrInvalid = errors.New("invalid network policy")

// FieldError says which field of a policy or rule string is at fault.
type FieldError struct {
	Field string // such as "Rules[2].Ports[0]", "protocol", "destination"
	Value string
	Err   string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("network policy: %s %q: %s", e.Field, e.Value, e.Err)
}

// Is makes every FieldError match ErrInvalid.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }
