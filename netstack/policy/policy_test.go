package policy

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var hostAddrs = map[netip.Addr]bool{addr("10.0.2.1"): true, addr("fd00::1"): true, addr("192.168.7.7"): true, addr("8.8.4.4"): true}

// hostIs is a host with the gateway's and two more addresses.
func hostIs(a netip.Addr) bool { return hostAddrs[a] }

func TestGroupOf(t *testing.T) {
	for s, want := range map[string]Group{
		"8.8.8.8": GroupPublic, "1.1.1.1": GroupPublic, "172.32.0.1": GroupPublic, "100.128.0.1": GroupPublic,
		"9.255.255.255": GroupPublic, "11.0.0.0": GroupPublic, "223.255.255.255": GroupPublic,
		"2606:4700::1111": GroupPublic, "2a00:1450::1": GroupPublic,
		// the host before everything else, a public address of its included
		"8.8.4.4": GroupHost, "192.168.7.7": GroupHost, "::ffff:10.0.2.1": GroupHost, "64:ff9b::a00:201": GroupHost, "fd00::1": GroupHost,
		// metadata before link-local, private and public
		"169.254.169.254": GroupMetadata, "100.100.100.200": GroupMetadata, "168.63.129.16": GroupMetadata,
		"fd00:ec2::254": GroupMetadata, "::ffff:169.254.169.254": GroupMetadata, "2002:a9fe:a9fe::1": GroupMetadata, "64:ff9b::a9fe:a9fe": GroupMetadata,
		"127.0.0.1": GroupLoopback, "127.255.255.255": GroupLoopback, "0.0.0.0": GroupLoopback, "0.1.2.3": GroupLoopback,
		"::1": GroupLoopback, "::": GroupLoopback, "::ffff:127.0.0.1": GroupLoopback, "::7f00:1": GroupLoopback,
		"10.0.0.0": GroupPrivate, "10.255.255.255": GroupPrivate, "172.16.0.1": GroupPrivate, "172.31.255.255": GroupPrivate,
		"192.168.0.1": GroupPrivate, "100.64.0.1": GroupPrivate, "100.127.255.255": GroupPrivate, "198.18.0.1": GroupPrivate,
		"192.0.2.1": GroupPrivate, "203.0.113.5": GroupPrivate, "240.0.0.1": GroupPrivate, "255.255.255.254": GroupPrivate,
		"fc00::1": GroupPrivate, "fdff::1": GroupPrivate, "fec0::1": GroupPrivate, "2001:db8::1": GroupPrivate,
		"2001:0:1::1":        GroupPrivate, // Teredo
		"64:ff9b:1::808:808": GroupPrivate, "::ffff:10.1.1.1": GroupPrivate, "64:ff9b::c0a8:1": GroupPrivate, "2002:c0a8:101::": GroupPrivate,
		"64:ff9b::808:808": GroupPublic, "2002:808:808::1": GroupPublic, "::808:808": GroupPublic,
		"169.254.1.1": GroupLinkLocal, "fe80::1": GroupLinkLocal, "fe80::1%eth0": GroupLinkLocal, "febf::1": GroupLinkLocal,
		"224.0.0.1": GroupMulticast, "239.255.255.255": GroupMulticast, "255.255.255.255": GroupMulticast, "ff02::1": GroupMulticast,
	} {
		if got := GroupOf(addr(s), hostIs); got != want {
			t.Errorf("%s is %v, want %v", s, got, want)
		}
	}
	if got := GroupOf(addr("8.8.4.4"), nil); got != GroupPublic {
		t.Errorf("without a host: %v", got)
	}
}

func TestParseRule(t *testing.T) {
	pfx := netip.MustParsePrefix
	for s, want := range map[string]Rule{
		"allow@any":                      {Action: Allow},
		"deny:any@*":                     {Direction: Any},
		"allow@api.example.com:tcp:443":  {Action: Allow, Destination: Destination{Domain: "api.example.com"}, Protos: TCP, Ports: []PortRange{{443, 443}}},
		"allow@API.Example.com.:tcp":     {Action: Allow, Destination: Destination{Domain: "api.example.com"}, Protos: TCP},
		"deny@.example.org":              {Destination: Destination{Suffix: "example.org"}},
		"deny@*.example.org":             {Destination: Destination{Suffix: "example.org"}},
		"allow@10.0.0.0/8:udp:53-60":     {Action: Allow, Destination: ToPrefix(pfx("10.0.0.0/8")), Protos: UDP, Ports: []PortRange{{53, 60}}},
		"allow:ingress@private:tcp:80":   {Action: Allow, Direction: Ingress, Destination: ToGroup(GroupPrivate), Protos: TCP, Ports: []PortRange{{80, 80}}},
		"allow@link-local":               {Action: Allow, Destination: ToGroup(GroupLinkLocal)},
		"deny@host:any:22,8000-8099":     {Destination: ToGroup(GroupHost), Ports: []PortRange{{22, 22}, {8000, 8099}}},
		"allow@public:tcp,udp:1-65535":   {Action: Allow, Destination: ToGroup(GroupPublic), Protos: TCP | UDP, Ports: []PortRange{{1, 65535}}},
		"allow@metadata:icmp":            {Action: Allow, Destination: ToGroup(GroupMetadata), Protos: ICMP},
		"deny@[2001:db8::/32]:tcp:22,80": {Destination: ToPrefix(pfx("2001:db8::/32")), Protos: TCP, Ports: []PortRange{{22, 22}, {80, 80}}},
		"deny@2001:db8::1":               {Destination: To(addr("2001:db8::1"))},
		"deny@fd00::/8":                  {Destination: ToPrefix(pfx("fd00::/8"))},
		"deny@::ffff:10.0.0.1":           {Destination: To(addr("10.0.0.1"))},
		"deny@[::ffff:10.0.0.0/104]:tcp": {Destination: ToPrefix(pfx("10.0.0.0/8")), Protos: TCP},
		"allow@1.2.3.4":                  {Action: Allow, Destination: To(addr("1.2.3.4"))},
		"allow@db":                       {Action: Allow, Destination: Destination{Domain: "db"}},
	} {
		got, err := ParseRule(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s, diff)
		}
		again, err := ParseRule(got.String())
		if err != nil || !cmp.Equal(got, again, cmpopts.EquateComparable(netip.Prefix{})) {
			t.Errorf("%s prints as %s, which reads as %v, %v", s, got, again, err)
		}
	}
}

func TestParseRuleErrors(t *testing.T) {
	for s, want := range map[string]string{
		"":                          `rule ""`,
		"allow":                     `rule "allow"`,
		"permit@any":                `action "permit"`,
		"allow:out@any":             `direction "out"`,
		"allow@":                    "destination",
		"allow@.com":                "one label",
		"deny@.":                    "destination",
		"allow@*.org":               "one label",
		"allow@exa mple.com":        "want letters",
		"allow@bücher.example":      "xn--",
		"allow@-x.example":          "hyphen",
		"allow@a..b":                "label is empty",
		"allow@10.0.0.1/8":          "want 10.0.0.0/8",
		"allow@10.0.0.0/33":         "not an address",
		"allow@[2001:db8::1":        "bracket",
		"allow@[2001:db8::1]x":      "after the bracket",
		"allow@[10.0.0.1]:tcp":      "brackets are for IPv6",
		"allow@[fe80::1%eth0]":      "not an address",
		"allow@any:sctp":            `protocol "sctp"`,
		"allow@any:":                `protocol ""`,
		"allow@any:tcp:":            `ports ""`,
		"allow@any:tcp:0":           `ports "0"`,
		"allow@any:tcp:90-80":       `ports "90-80"`,
		"allow@any:tcp:65536":       `ports "65536"`,
		"allow@any:tcp:1-2-3":       `ports "1-2-3"`,
		"allow@any:tcp:http":        `ports "http"`,
		"allow@any:icmp:80":         "ICMP has no ports",
		"allow:ingress@example.com": "no source of ingress",
		"allow@" + strings.Repeat("a.", 200) + "example": "longer than 253",
		"allow@" + strings.Repeat("x", 5000):             "longer than 4096",
	} {
		_, err := ParseRule(s)
		var fe *FieldError
		if !errors.As(err, &fe) || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want a FieldError with %s", s, err, want)
		}
	}
}

func rules(t *testing.T, list ...string) []Rule {
	t.Helper()
	var rs []Rule
	for _, s := range list {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

func engine(t *testing.T, p Policy) *Engine {
	t.Helper()
	e, err := New(p, hostIs)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestCheckNamesTheField(t *testing.T) {
	for want, p := range map[string]Policy{
		"Egress":                       {Egress: 7},
		"Ingress":                      {Ingress: 7},
		"NoNetwork":                    {NoNetwork: true, Egress: Allow},
		"Rules":                        {Rules: make([]Rule, MaxRules+1)},
		"Rules[1].Action":              {Rules: []Rule{{}, {Action: 9}}},
		"Rules[0].Direction":           {Rules: []Rule{{Direction: 9}}},
		"Rules[0].Protos":              {Rules: []Rule{{Protos: 64}}},
		"Rules[0].Ports[1]":            {Rules: []Rule{{Ports: []PortRange{{1, 2}, {9, 3}}}}},
		"Rules[0].Destination":         {Rules: []Rule{{Destination: Destination{Domain: "a", Group: GroupHost}}}},
		"Rules[0].Destination.Group":   {Rules: []Rule{{Destination: Destination{Group: 99}}}},
		"Rules[0].Destination.Domain":  {Rules: []Rule{{Destination: Destination{Domain: "Public.Example"}}}},
		"Rules[0].Destination.Suffix":  {Rules: []Rule{{Destination: Destination{Suffix: "com"}}}},
		"Rules[0].Destination.Prefix":  {Rules: []Rule{{Destination: Destination{Prefix: netip.MustParsePrefix("::ffff:1.2.3.0/120")}}}},
		"Rules[0].Destination.Domain ": {Rules: []Rule{{Destination: Destination{Domain: "public"}}}},
	} {
		_, err := New(p, nil)
		var fe *FieldError
		if !errors.As(err, &fe) || fe.Field != strings.TrimSpace(want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestEvaluate(t *testing.T) {
	tcp := func(a string, port uint16, names ...string) Flow {
		return Flow{Proto: TCP, Addr: addr(a), Port: port, Names: names}
	}
	sni := func(f Flow, name string) Flow { f.Inspected, f.SNI = true, name; return f }
	udp := func(a string, port uint16, names ...string) Flow {
		return Flow{Proto: UDP, Addr: addr(a), Port: port, Names: names}
	}
	in := func(a string, port uint16) Flow {
		return Flow{Direction: Ingress, Proto: TCP, Addr: addr(a), Port: port}
	}
	no, yes := Decision{Rule: NoRule}, Decision{Allow: true, Rule: NoRule}
	by := func(rule int) Decision { return Decision{Allow: true, Rule: rule} }
	not := func(rule int) Decision { return Decision{Rule: rule} }
	need := func(rule int) Decision { return Decision{Allow: true, Rule: rule, NeedSNI: true} }
	first := func(rule int) Decision {
		return Decision{Allow: true, Rule: rule, NeedSNI: true, ConnectFirst: true}
	}

	domains := Policy{Rules: rules(t, "deny@bad.example.com", "allow@.example.com:tcp:443", "allow@10.0.0.0/8:tcp:80-90"), Ingress: Allow}
	listed := Public().WithDenied([]string{"evil.example"}, []string{".ads.example"})
	for _, c := range []struct {
		what   string
		policy Policy
		flow   Flow
		want   Decision
	}{
		{"zero policy", Policy{}, tcp("8.8.8.8", 80), no},
		{"none", None(), tcp("8.8.8.8", 80), no},
		{"public", Public(), tcp("8.8.8.8", 80), by(0)},
		{"public v6", Public(), tcp("2606:4700::1111", 80), by(0)},
		{"public udp", Public(), udp("8.8.8.8", 443), by(0)},
		{"public icmp", Public(), Flow{Proto: ICMP, Addr: addr("8.8.8.8")}, by(0)},
		{"public to private", Public(), tcp("10.1.1.1", 80), no},
		{"public to mapped private", Public(), tcp("::ffff:10.1.1.1", 80), no},
		{"public to translated private", Public(), tcp("64:ff9b::10.1.1.1", 80), no},
		{"public to host", Public(), tcp("10.0.2.1", 80), no},
		{"public to host by its public address", Public(), tcp("8.8.4.4", 80), no},
		{"public to metadata", Public(), tcp("169.254.169.254", 80), no},
		{"public to public metadata", Public(), tcp("168.63.129.16", 80), no},
		{"public from outside", Public(), in("192.168.1.1", 80), yes},
		{"non-local to private", NonLocal(), tcp("192.168.1.1", 80), by(1)},
		{"non-local to CGNAT", NonLocal(), tcp("100.64.0.9", 80), by(1)},
		{"non-local to host", NonLocal(), tcp("192.168.7.7", 80), no},
		{"non-local to link-local", NonLocal(), tcp("169.254.3.3", 80), no},
		{"non-local to multicast", NonLocal(), udp("224.0.0.251", 5353), no},
		{"allow all to host", AllowAll(), tcp("10.0.2.1", 80), yes},
		{"first match", Policy{Rules: rules(t, "deny@8.8.8.8", "allow@any")}, tcp("8.8.8.8", 80), not(0)},
		{"first match, other", Policy{Rules: rules(t, "deny@8.8.8.8", "allow@any")}, tcp("8.8.8.9", 80), by(1)},
		{"deny holds for what is embedded", Policy{Rules: rules(t, "deny@8.8.8.8"), Egress: Allow}, tcp("64:ff9b::8.8.8.8", 80), not(0)},
		{"allow does not", Policy{Rules: rules(t, "allow@8.8.8.8")}, tcp("64:ff9b::8.8.8.8", 80), no},
		{"allow holds for mapped", Policy{Rules: rules(t, "allow@8.8.8.8")}, tcp("::ffff:8.8.8.8", 80), by(0)},
		{"direction", Policy{Rules: rules(t, "allow:ingress@any")}, tcp("8.8.8.8", 80), no},
		{"ingress by source and port", Policy{Rules: rules(t, "allow:ingress@192.168.0.0/16:tcp:80")}, in("192.168.1.1", 80), by(0)},
		{"ingress other port", Policy{Rules: rules(t, "allow:ingress@192.168.0.0/16:tcp:80")}, in("192.168.1.1", 81), no},
		{"both directions", Policy{Rules: rules(t, "allow:any@any")}, in("192.168.1.1", 81), by(0)},
		{"port ranges", domains, tcp("10.1.1.1", 90), first(2)},
		{"port outside", domains, tcp("10.1.1.1", 91), no},
		{"rule with ports and icmp", Policy{Rules: rules(t, "allow@any:any:1-65535")}, Flow{Proto: ICMP, Addr: addr("8.8.8.8")}, no},

		{"domain without DNS", domains, tcp("8.8.8.8", 443), no},
		{"domain of another name", domains, tcp("8.8.8.8", 443, "example.net", "notexample.com"), no},
		{"domain by DNS, to be inspected", domains, tcp("8.8.8.8", 443, "www.example.com"), need(1)},
		{"suffix has its own name", domains, tcp("8.8.8.8", 443, "EXAMPLE.com."), need(1)},
		{"domain and SNI agree", domains, sni(tcp("8.8.8.8", 443, "www.example.com"), "www.example.com"), by(1)},
		{"SNI of another subdomain", domains, sni(tcp("8.8.8.8", 443, "www.example.com"), "api.example.com"), by(1)},
		{"SNI disagrees", domains, sni(tcp("8.8.8.8", 443, "www.example.com"), "evil.example"), no},
		{"no TLS", domains, sni(tcp("8.8.8.8", 443, "www.example.com"), ""), by(1)},
		{"SNI alone does not open", domains, sni(tcp("8.8.8.8", 443), "www.example.com"), no},
		{"denied by SNI", domains, sni(tcp("8.8.8.8", 443, "www.example.com"), "bad.example.com"), not(0)},
		{"denied by DNS", domains, tcp("8.8.8.8", 443, "www.example.com", "bad.example.com"), not(0)},
		{"deny list waits", listed, tcp("8.8.8.8", 443), first(2)},
		{"deny list before the default", AllowAll().WithDenied([]string{"evil.example"}, nil), tcp("8.8.8.8", 22), first(NoRule)},
		{"deny list and an allowed domain", listed.WithRules(rules(t, "allow@example.com")...), tcp("8.8.8.8", 443, "example.com"), need(0)},
		{"deny list before an allowed domain", Public().WithRules(rules(t, "allow@example.com")...).WithDenied([]string{"evil.example"}, nil), tcp("8.8.8.8", 443, "example.com"), need(1)},
		{"deny list, and a domain that is not the address's", listed.WithRules(rules(t, "allow@example.com")...), tcp("8.8.8.8", 443, "example.org"), first(3)},
		{"deny list of other ports", Public().WithRules(rules(t, "deny@evil.example:tcp:443")...), tcp("8.8.8.8", 22), by(1)},
		{"deny list passes", listed, sni(tcp("8.8.8.8", 443), "fine.example"), by(2)},
		{"deny list, plain", listed, sni(tcp("8.8.8.8", 80), ""), by(2)},
		{"deny list by SNI alone", listed, sni(tcp("8.8.8.8", 443), "Evil.Example"), not(0)},
		{"deny list suffix by SNI", listed, sni(tcp("8.8.8.8", 443), "x.y.ads.example"), not(1)},
		{"a denial does not wait", listed, tcp("10.1.1.1", 443), no},
		{"deny list and QUIC", listed, udp("8.8.8.8", 443), not(0)},
		{"deny list and other UDP", listed, udp("8.8.8.8", 123), by(2)},
		{"QUIC by domain", Policy{Rules: rules(t, "allow@example.com")}, udp("8.8.8.8", 443, "example.com"), no},
		{"QUIC by domain, asked for", Policy{Rules: rules(t, "allow@example.com:udp:443")}, udp("8.8.8.8", 443, "example.com"), by(0)},
		{"UDP by domain", Policy{Rules: rules(t, "allow@example.com")}, udp("8.8.8.8", 123, "example.com"), by(0)},
		{"domains are no ingress", Policy{Rules: rules(t, "deny:any@example.com"), Ingress: Allow}, in("8.8.8.8", 443), yes},
		{"SNI that disagrees falls through", Policy{Rules: rules(t, "allow@example.com", "allow@public")}, sni(tcp("8.8.8.8", 443, "example.com"), "other.example"), by(1)},
		{"DNS over TLS", AllowAll(), tcp("8.8.8.8", 853), not(RuleDNS)},
		{"DNS over QUIC", Public(), udp("8.8.8.8", 853), not(RuleDNS)},
		{"mDNS", AllowAll(), udp("224.0.0.251", 5353), not(RuleDNS)},
		{"LLMNR", AllowAll(), tcp("10.0.0.1", 5355), not(RuleDNS)},
		{"TCP 5353", AllowAll(), tcp("8.8.8.8", 5353), yes},
		{"DNS over TLS, asked for", Public().WithRules(rules(t, "allow@8.8.8.8:tcp:853")...), tcp("8.8.8.8", 853), by(0)},
		{"ingress to 853", AllowAll(), in("8.8.8.8", 853), yes},
		{"no address", AllowAll(), Flow{Proto: TCP, Port: 80}, no},
		{"two protocols", AllowAll(), Flow{Proto: TCP | UDP, Addr: addr("8.8.8.8")}, no},
		{"bad direction", AllowAll(), Flow{Direction: Any, Proto: TCP, Addr: addr("8.8.8.8")}, no},
	} {
		if got := engine(t, c.policy).Evaluate(c.flow); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		name   string
		want   bool
	}{
		{Public(), "example.com", true},
		{Policy{}, "example.com", false},
		{AllowAll(), "example.com", true},
		{Public().WithDenied([]string{"evil.example"}, []string{"ads.example"}), "EVIL.example.", false},
		{Public().WithDenied([]string{"evil.example"}, []string{"ads.example"}), "sub.evil.example", true},
		{Public().WithDenied([]string{"evil.example"}, []string{"ads.example"}), "a.b.ads.example", false},
		{Policy{Rules: rules(t, "allow@api.example.com:tcp:443")}, "api.example.com", true},
		{Policy{Rules: rules(t, "allow@api.example.com:tcp:443")}, "secret.attacker.example", false},
		{Policy{Rules: rules(t, "allow@10.0.0.0/8")}, "example.com", true},
		{Policy{Rules: rules(t, "deny@example.com:tcp:25", "allow@public")}, "example.com", true},
		{Policy{Rules: rules(t, "deny@10.0.0.0/8"), Egress: Allow}, "example.com", true},
		{Policy{Rules: rules(t, "allow@example.com", "deny@any"), Egress: Allow}, "example.com", true},
		{Policy{Rules: rules(t, "allow@example.com", "deny@any"), Egress: Allow}, "example.org", false},
		{Policy{Rules: rules(t, "allow:ingress@any")}, "example.org", false},
	} {
		if got, _ := engine(t, c.policy).Name(c.name); got != c.want {
			t.Errorf("%v: %s: %v", c.policy.Rules, c.name, got)
		}
	}
}

func TestReachable(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		addr   string
		want   bool
	}{
		{Public(), "8.8.8.8", true},
		{Public(), "10.0.0.1", false},
		{NonLocal(), "10.0.0.1", true},
		{Policy{Rules: rules(t, "allow@10.0.0.0/8:tcp:80")}, "10.0.0.1", true},
		{Policy{Rules: rules(t, "deny@10.0.0.1", "allow@10.0.0.0/8:tcp:80")}, "10.0.0.1", false},
		{Policy{Rules: rules(t, "deny@10.0.0.1:udp", "allow@10.0.0.0/8:tcp:80")}, "10.0.0.1", true},
		{Policy{Rules: rules(t, "allow@example.com")}, "10.0.0.1", false},
		{AllowAll(), "127.0.0.1", true},
	} {
		if got := engine(t, c.policy).Reachable(addr(c.addr)); got != c.want {
			t.Errorf("%v: %s: %v", c.policy.Rules, c.addr, got)
		}
	}
}

func TestPreset(t *testing.T) {
	for name, want := range map[string]Policy{"none": None(), "public": Public(), "non-local": NonLocal(), "allow-all": AllowAll()} {
		if got, err := Preset(name); err != nil || !cmp.Equal(got, want, cmpopts.EquateComparable(netip.Prefix{})) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := Preset("all"); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown preset: %v", err)
	}
	if _, err := New(Public().WithDenied(nil, []string{".com"}), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("a suffix of one label: %v", err)
	}
}

func TestJSON(t *testing.T) {
	p := NonLocal().WithDenied([]string{"evil.example"}, []string{"ads.example"})
	p.Rules = append(p.Rules, rules(t, "deny:any@[2001:db8::/32]:tcp,udp:22,80-90")...)
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got Policy
	if err := json.Unmarshal(b, &got); err != nil || !cmp.Equal(p, got, cmpopts.EquateComparable(netip.Prefix{})) {
		t.Errorf("%s reads as %+v, %v", b, got, err)
	}
	for _, s := range []string{`{"egress":"maybe"}`, `{"rules":["allow@.com"]}`} {
		if err := json.Unmarshal([]byte(s), &got); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestEvaluateAllocatesNothing(t *testing.T) {
	e := engine(t, Public().WithDenied([]string{"evil.example"}, []string{"ads.example"}))
	f := Flow{Proto: TCP, Addr: addr("8.8.8.8"), Port: 443, Names: []string{"www.example.com"}}
	if n := testing.AllocsPerRun(100, func() { e.Evaluate(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	e, _ := New(Public().WithDenied([]string{"evil.example"}, []string{"ads.example"}), nil)
	f := Flow{Proto: TCP, Addr: addr("8.8.8.8"), Port: 443, Names: []string{"www.example.com"}}
	for b.Loop() {
		e.Evaluate(f)
	}
}
