package dns

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hutchvm/hutch/netstack/policy"
)

// maxChain bounds a chain of aliases.
const maxChain = 16

// filter makes an answer of what a resolver said. Only records that lead from
// the question's name to the type asked for pass; addresses are checked and
// pinned to the name that was asked for.
func (p *Proxy) filter(req *request, m *dnsmessage.Message) *answer {
	a := &answer{rcode: m.RCode, authentic: m.AuthenticData && req.dnssec, outcome: Answered, rule: policy.NoRule}
	if m.RCode != dnsmessage.RCodeSuccess && m.RCode != dnsmessage.RCodeNameError {
		a.outcome = Failed
		return a
	}
	chain := []string{req.name}
	for range maxChain {
		next := alias(m.Answers, chain[len(chain)-1])
		if next == "" {
			break
		}
		// An alias of a denied name is that name in disguise.
		if p.cfg.Policy.Denies(next) {
			_, rule := p.cfg.Policy.Name(next)
			return noName(Denied, rule)
		}
		chain = append(chain, next)
	}
	type pinned struct {
		addr netip.Addr
		ttl  time.Duration
	}
	var pin []pinned
	ttl := uint32(maxTTL / time.Second) // the least of the chain so far
	dropped := false
	for _, r := range m.Answers {
		at := indexOf(chain, policy.NormalName(r.Header.Name.String()))
		if at < 0 || r.Header.Class != dnsmessage.ClassINET || !wanted(req, r.Header.Type) {
			continue
		}
		r.Header.TTL = min(r.Header.TTL, uint32(maxTTL/time.Second))
		ttl = min(ttl, r.Header.TTL)
		var addr netip.Addr
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			addr = netip.AddrFrom4(body.A)
		case *dnsmessage.AAAAResource:
			addr = netip.AddrFrom16(body.AAAA)
		}
		if addr.IsValid() {
			if at != len(chain)-1 {
				continue
			}
			if p.local(addr) {
				dropped = true
				continue
			}
			pin = append(pin, pinned{policy.Normal(addr), time.Duration(r.Header.TTL) * time.Second})
		}
		a.records = append(a.records, r)
	}
	if dropped && pin == nil {
		return noName(Rebind, policy.NoRule)
	}
	for _, e := range pin {
		p.pins.add(req.name, e.addr, e.ttl, req.began)
		a.addrs = append(a.addrs, e.addr)
	}
	for _, r := range m.Authorities {
		if t := r.Header.Type; t == dnsmessage.TypeSOA || req.dnssec && t != dnsmessage.TypeA && t != dnsmessage.TypeAAAA && !compressed(t) {
			r.Header.TTL = min(r.Header.TTL, uint32(maxTTL/time.Second))
			a.auth = append(a.auth, r)
		}
	}
	return a
}

// alias is what a name is an alias of, "" if it is none.
func alias(records []dnsmessage.Resource, name string) string {
	for _, r := range records {
		if c, ok := r.Body.(*dnsmessage.CNAMEResource); ok && policy.NormalName(r.Header.Name.String()) == name {
			if to := policy.NormalName(c.CNAME.String()); to != name {
				return to
			}
		}
	}
	return ""
}

func indexOf(list []string, s string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == s {
			return i
		}
	}
	return -1
}

// wanted tells whether a record of a type belongs into the answer to a query.
func wanted(req *request, t dnsmessage.Type) bool {
	switch {
	case compressed(t):
		return false
	case t == req.question.Type, t == dnsmessage.TypeCNAME, t == typeDNAME:
		return true
	}
	return t == typeRRSIG && req.dnssec
}

// compressed tells of old types, whose data may hold names that are shortened
// by reference to the message: they cannot be carried over into another one.
func compressed(t dnsmessage.Type) bool {
	switch t {
	case 3, 4, 7, 8, 9, 14, 17, 18, 21, 24, 26, 30, 35:
		return true
	}
	return false
}

// reverse is the address that a name of in-addr.arpa or ip6.arpa stands for.
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, l := range labels {
			n, err := strconv.ParseUint(l, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	digits := make([]byte, 32)
	for i := range digits {
		digits[31-i] = rest[2*i]
		if i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
	}
	var b [16]byte
	if _, err := hex.Decode(b[:], digits); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(b), true
}
