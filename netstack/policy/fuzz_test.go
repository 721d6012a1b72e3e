package policy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// FuzzParseRule: whatever parses is valid and prints as something that parses
// as the same.
func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"allow@api.example.com:tcp:443", "deny@.example.org", "allow@10.0.0.0/8:udp:53-60", "deny:any@[2001:db8::/32]:tcp,udp:22,80",
		"allow:ingress@private", "deny@fd00::/8", "allow@*", "deny@::ffff:1.2.3.4", "allow@[::1]:icmp", "allow@*.a.b:any:1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v is no ErrInvalid", s, err)
			}
			return
		}
		if err := r.Check(); err != nil {
			t.Fatalf("%q parses as invalid: %v", s, err)
		}
		again, err := ParseRule(r.String())
		if err != nil || again.String() != r.String() || again.Destination != r.Destination || again.Protos != r.Protos {
			t.Fatalf("%q prints as %q, which reads as %v, %v", s, r, again, err)
		}
	})
}

// FuzzEvaluate checks what must hold for every policy and flow.
func FuzzEvaluate(f *testing.F) {
	f.Add("allow@example.com:tcp:443\ndeny@any", []byte{8, 8, 8, 8}, uint16(443), uint8(1), uint8(0), "www.example.com", "example.com", uint8(0))
	f.Add("deny@.ads.example\nallow@public", []byte{8, 8, 8, 8}, uint16(443), uint8(2), uint8(0), "", "x.ads.example", uint8(1))
	f.Add("allow@10.0.0.0/8", []byte{0x20, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, uint16(1), uint8(4), uint8(1), "", "", uint8(3))
	f.Fuzz(func(t *testing.T, text string, ip []byte, port uint16, proto, direction uint8, name, sni string, defaults uint8) {
		p := Policy{Egress: Action(defaults & 1), Ingress: Action(defaults >> 1 & 1)}
		for line := range strings.SplitSeq(text, "\n") {
			if r, err := ParseRule(line); err == nil && len(p.Rules) < 16 {
				p.Rules = append(p.Rules, r)
			}
		}
		e, err := New(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		flow := Flow{Direction: Direction(direction), Proto: Proto(proto), Addr: a, Port: port}
		if name != "" {
			flow.Names = []string{name}
		}
		first := e.Evaluate(flow)
		if first.Rule < RuleDNS || first.Rule >= len(p.Rules) {
			t.Fatalf("rule %d of %d", first.Rule, len(p.Rules))
		}
		if first.NeedSNI && !first.Allow {
			t.Fatal("a denial that waits")
		}
		if first.ConnectFirst {
			bare := flow
			if bare.Names = nil; !first.NeedSNI || e.Evaluate(bare) != first {
				t.Fatalf("%+v: the address alone gives %+v", first, e.Evaluate(bare))
			}
		}
		if first.Rule >= 0 && first.Allow != (p.Rules[first.Rule].Action == Allow) && !(flow.Proto == UDP && port == quicPort) {
			t.Fatalf("rule %v made %+v", p.Rules[first.Rule], first)
		}
		seen := flow
		seen.Inspected, seen.SNI = true, sni
		final := e.Evaluate(seen)
		if final.NeedSNI {
			t.Fatal("an inspected flow waits")
		}
		if final.Allow && !first.Allow {
			t.Fatalf("the name in the ClientHello opened a flow: %+v, %+v", first, final)
		}
		if first.Allow && final != first && !first.NeedSNI && flow.Proto == TCP {
			t.Fatalf("the decision changed without notice: %+v, %+v", first, final)
		}
		if a.Is4() { // written as IPv6 it is the same
			mapped := flow
			mapped.Addr = netip.AddrFrom16(a.As16())
			if got := e.Evaluate(mapped); got != first {
				t.Fatalf("mapped: %+v, want %+v", got, first)
			}
		}
		if g := GroupOf(a, nil); !g.valid() {
			t.Fatalf("%v has no group", a)
		}
		// What an address rule opens is reachable.
		if bare := flow; first.Allow && flow.Direction == Egress {
			bare.Names = nil
			if d := e.Evaluate(bare); d.Allow && !e.Reachable(a) {
				t.Fatalf("%v is open but not reachable", a)
			}
		}
	})
}
