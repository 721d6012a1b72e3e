package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/netstack/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bothPorts listens on one port of UDP and TCP. That of UDP is picked; that of TCP
// may be another's.
func bothPorts(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for try := 0; ; try++ {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
		if try == 20 {
			t.Fatal(err)
		}
	}
}

// resolver is an upstream on the loopback; n counts its queries.
func resolver(t *testing.T, h mdns.HandlerFunc) (address string, n *atomic.Int32) {
	t.Helper()
	n = new(atomic.Int32)
	counted := mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		n.Add(1)
		h(w, r)
	})
	pc, l := bothPorts(t)
	address = pc.LocalAddr().String()
	for _, s := range []*mdns.Server{{PacketConn: pc, Handler: counted}, {Listener: l, Handler: counted}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() { s.Shutdown(); <-done })
	}
	return address, n
}

// silent is an upstream that never answers.
func silent(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.LocalAddr().String()
}

// closed is an address where nobody listens.
func closed(t *testing.T) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return pc.LocalAddr().String()
}

// zone answers with the records that are given in zone file form.
func zone(records ...string) mdns.HandlerFunc {
	var all []mdns.RR
	for _, s := range records {
		rr, err := mdns.NewRR(s)
		if err != nil {
			panic(err)
		}
		all = append(all, rr)
	}
	return func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetReply(r)
		name := strings.ToLower(r.Question[0].Name)
		known := false
		for range 10 {
			next := ""
			for _, rr := range all {
				if rr.Header().Name != name {
					continue
				}
				known = true
				if c, ok := rr.(*mdns.CNAME); ok {
					m.Answer = append(m.Answer, rr)
					next = c.Target
				} else if rr.Header().Rrtype == r.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
			if next == "" {
				break
			}
			name = next
		}
		if !known {
			m.Rcode = mdns.RcodeNameError
		}
		w.WriteMsg(m)
	}
}

func engine(t testing.TB, p policy.Policy, rules ...string) *policy.Engine {
	t.Helper()
	var first []policy.Rule
	for _, s := range rules {
		r, err := policy.ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		first = append(first, r)
	}
	e, err := policy.New(p.WithRules(first...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// proxy makes a proxy that reads none of this machine's files.
func proxy(t testing.TB, c Config) *Proxy {
	t.Helper()
	if c.Policy == nil {
		c.Policy = engine(t, policy.Public())
	}
	if c.Hosts == "" {
		c.Hosts = "/nonexistent"
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/nonexistent"
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func query(name string, qtype uint16) *mdns.Msg {
	m := new(mdns.Msg)
	m.SetQuestion(mdns.Fqdn(name), qtype)
	return m
}

func send(t testing.TB, p *Proxy, m *mdns.Msg, tcp bool) *mdns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply := p.Handle(context.Background(), b, tcp)
	r := new(mdns.Msg)
	if err := r.Unpack(reply); err != nil {
		t.Fatalf("%v: reply %x: %v", m.Question, reply, err)
	}
	if r.Id != m.Id || !r.Response || !cmp.Equal(r.Question, m.Question) {
		t.Fatalf("a reply to something else: %v", r)
	}
	return r
}

// ask gives the answer in short: the code, then the data of the records.
func ask(t testing.TB, p *Proxy, name string, qtype uint16) string {
	t.Helper()
	r := send(t, p, query(name, qtype), false)
	s := mdns.RcodeToString[r.Rcode]
	for _, rr := range r.Answer {
		s += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	return s
}

func expect(t *testing.T, p *Proxy, name string, qtype uint16, want string) {
	t.Helper()
	if got := ask(t, p, name, qtype); got != want {
		t.Errorf("%s %s: %q, want %q", name, mdns.TypeToString[qtype], got, want)
	}
}

func TestAnswersAndPins(t *testing.T) {
	up, _ := resolver(t, zone("www.example.com. 300 A 8.8.1.1", "www.example.com. 300 A 8.8.1.2", "www.example.com. 300 AAAA 2606:4700::1",
		"alias.example.com. 300 CNAME cdn.example.net.", "cdn.example.net. 20 A 8.8.2.1",
		"example.com. 300 MX 10 mail.example.com.", "example.com. 300 TXT \"a text\"", "example.com. 300 CAA 0 issue \"ca.example\"",
		"_x._tcp.example.com. 300 SRV 1 2 3 www.example.com."))
	p := proxy(t, Config{Servers: []string{up}})
	expect(t, p, "WWW.example.com", mdns.TypeA, "NOERROR 8.8.1.1 8.8.1.2")
	expect(t, p, "www.example.com", mdns.TypeAAAA, "NOERROR 2606:4700::1")
	expect(t, p, "alias.example.com", mdns.TypeA, "NOERROR cdn.example.net. 8.8.2.1")
	expect(t, p, "example.com", mdns.TypeMX, "NOERROR 10 mail.example.com.")
	expect(t, p, "example.com", mdns.TypeTXT, `NOERROR "a text"`)
	expect(t, p, "example.com", mdns.TypeCAA, `NOERROR 0 issue "ca.example"`)
	expect(t, p, "_x._tcp.example.com", mdns.TypeSRV, "NOERROR 1 2 3 www.example.com.")
	expect(t, p, "nowhere.example.com", mdns.TypeA, "NXDOMAIN")
	expect(t, p, "www.example.com", mdns.TypeTXT, "NOERROR")
	for addr, want := range map[string][]string{
		"8.8.1.2": {"www.example.com"}, "::ffff:8.8.1.1": {"www.example.com"}, "2606:4700::1": {"www.example.com"}, "8.8.2.1": {"alias.example.com"}, "8.8.9.9": nil,
	} {
		if got := p.Names(netip.MustParseAddr(addr)); !slices.Equal(got, want) {
			t.Errorf("names of %s: %v, want %v", addr, got, want)
		}
	}
}

func TestDenied(t *testing.T) {
	up, n := resolver(t, zone("a.example.com. 300 A 8.8.1.1", "cloaked.example.com. 300 CNAME x.ads.example.", "x.ads.example. 300 A 8.8.1.2",
		"api.example.com. 300 CNAME cdn.example.net.", "cdn.example.net. 300 A 8.8.1.3"))
	var log []Query
	p := proxy(t, Config{Servers: []string{up}, Policy: engine(t, policy.Public(), "deny@.ads.example"), Log: func(q Query) { log = append(log, q) }})
	expect(t, p, "x.ADS.example", mdns.TypeA, "NXDOMAIN")
	expect(t, p, "ads.example", mdns.TypeTXT, "NXDOMAIN")
	if n.Load() != 0 {
		t.Errorf("%d queries for denied names went out", n.Load())
	}
	expect(t, p, "cloaked.example.com", mdns.TypeA, "NXDOMAIN")
	expect(t, p, "a.example.com", mdns.TypeA, "NOERROR 8.8.1.1")
	if got := p.Names(netip.MustParseAddr("8.8.1.2")); got != nil {
		t.Errorf("a denied alias is pinned: %v", got)
	}
	if len(log) != 4 || log[0].Outcome != Denied || log[0].Rule != 0 || log[0].Name != "x.ads.example" || log[0].Type != "A" || log[3].Outcome != Answered || len(log[3].Addrs) != 1 {
		t.Errorf("log: %+v", log)
	}
	// Only what some rule can make use of goes out; an alias of an allowed name does.
	p = proxy(t, Config{Servers: []string{up}, Policy: engine(t, policy.Policy{}, "allow@api.example.com:tcp:443")})
	before := n.Load()
	expect(t, p, "secret.attacker.example", mdns.TypeTXT, "NXDOMAIN")
	if n.Load() != before {
		t.Error("a query of no use went out")
	}
	expect(t, p, "api.example.com", mdns.TypeA, "NOERROR cdn.example.net. 8.8.1.3")
	if got := p.Names(netip.MustParseAddr("8.8.1.3")); !slices.Equal(got, []string{"api.example.com"}) {
		t.Errorf("names: %v", got)
	}
}

func TestRebind(t *testing.T) {
	up, _ := resolver(t, zone("in.example. 300 A 10.0.0.1", "meta.example. 300 A 169.254.169.254", "mixed.example. 300 A 8.8.1.1", "mixed.example. 300 A 127.0.0.1",
		"zero.example. 300 A 0.0.0.0", "six.example. 300 AAAA ::ffff:192.168.0.1", "six.example. 300 AAAA fd00::1", "nat.example. 300 AAAA 64:ff9b::c0a8:1",
		"1.0.0.10.in-addr.arpa. 300 PTR secret.corp.example.", "1.1.8.8.in-addr.arpa. 300 PTR www.example."))
	p := proxy(t, Config{Servers: []string{up}})
	for _, name := range []string{"in.example", "meta.example", "zero.example"} {
		expect(t, p, name, mdns.TypeA, "NXDOMAIN")
	}
	expect(t, p, "six.example", mdns.TypeAAAA, "NXDOMAIN")
	expect(t, p, "nat.example", mdns.TypeAAAA, "NXDOMAIN")
	expect(t, p, "mixed.example", mdns.TypeA, "NOERROR 8.8.1.1")
	expect(t, p, "1.0.0.10.in-addr.arpa", mdns.TypePTR, "NXDOMAIN")
	expect(t, p, "1.1.8.8.in-addr.arpa", mdns.TypePTR, "NOERROR www.example.")
	if got := p.Names(netip.MustParseAddr("10.0.0.1")); got != nil {
		t.Errorf("pinned: %v", got)
	}
	p = proxy(t, Config{Servers: []string{up}, Policy: engine(t, policy.Public(), "allow@10.0.0.0/8:tcp:80")})
	expect(t, p, "in.example", mdns.TypeA, "NOERROR 10.0.0.1")
	expect(t, p, "meta.example", mdns.TypeA, "NXDOMAIN")
	expect(t, p, "1.0.0.10.in-addr.arpa", mdns.TypePTR, "NOERROR secret.corp.example.")
	p = proxy(t, Config{Servers: []string{up}, AllowRebind: true})
	expect(t, p, "in.example", mdns.TypeA, "NOERROR 10.0.0.1")
}

// TestForeignRecords: what is not on the way from the question to its answer is
// neither passed on nor pinned.
func TestForeignRecords(t *testing.T) {
	up, _ := resolver(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetReply(r)
		for _, s := range []string{"a.example. 300 A 8.8.1.1", "victim.example. 300 A 8.8.1.2", "a.example. 300 AAAA 2606::1"} {
			rr, _ := mdns.NewRR(s)
			m.Answer = append(m.Answer, rr)
			m.Extra = append(m.Extra, rr)
			m.Ns = append(m.Ns, rr)
		}
		w.WriteMsg(m)
	})
	p := proxy(t, Config{Servers: []string{up}})
	expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
	if r := send(t, p, query("a.example", mdns.TypeA), false); len(r.Ns)+len(r.Extra) > 0 {
		t.Errorf("reply: %v", r)
	}
	if got := p.Names(netip.MustParseAddr("8.8.1.2")); got != nil {
		t.Errorf("pinned: %v", got)
	}
}

func TestFailOver(t *testing.T) {
	up, n := resolver(t, zone("a.example. 300 A 8.8.1.1"))
	p := proxy(t, Config{Servers: []string{silent(t), up}, Timeout: 1200 * time.Millisecond})
	expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
	begin := time.Now()
	for range 5 { // asking the dead one first would take 300 ms each time
		expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("the dead resolver is asked again and again: %v", d)
	}
	if n.Load() != 6 {
		t.Errorf("%d queries", n.Load())
	}
	// One that refuses, one that fails, one that answers.
	fails, _ := resolver(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetRcode(r, mdns.RcodeServerFailure)
		w.WriteMsg(m)
	})
	p = proxy(t, Config{Servers: []string{closed(t), fails, up}})
	expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
	p = proxy(t, Config{Servers: []string{closed(t), fails}})
	expect(t, p, "a.example", mdns.TypeA, "SERVFAIL")
}

func TestNobodyAnswers(t *testing.T) {
	p := proxy(t, Config{Servers: []string{silent(t), silent(t)}, Timeout: 700 * time.Millisecond})
	begin := time.Now()
	expect(t, p, "a.example", mdns.TypeA, "SERVFAIL")
	if d := time.Since(begin); d < 600*time.Millisecond || d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	p = proxy(t, Config{Servers: []string{closed(t)}})
	begin = time.Now()
	expect(t, p, "a.example", mdns.TypeA, "SERVFAIL")
	if d := time.Since(begin); d > time.Second {
		t.Errorf("a refusal took %v", d)
	}
	// A guest cannot have more than so many in flight.
	p = proxy(t, Config{Servers: []string{silent(t)}, Timeout: 700 * time.Millisecond, InFlight: 2})
	done := make(chan time.Duration, 8)
	b, _ := query("a.example", mdns.TypeA).Pack()
	for range 8 {
		go func() {
			begin := time.Now()
			p.Handle(context.Background(), b, false)
			done <- time.Since(begin)
		}()
	}
	slow := 0
	for range 8 {
		if <-done > 600*time.Millisecond {
			slow++
		}
	}
	if slow != 2 {
		t.Errorf("%d queries were in flight, want 2", slow)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin = time.Now()
	p.Handle(ctx, b, false)
	if d := time.Since(begin); d > 500*time.Millisecond {
		t.Errorf("cancelling took %v", d)
	}
}

func TestTruncation(t *testing.T) {
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf("many.example. 300 A 8.8.1.%d", i+1))
	}
	answer := zone(list...)
	up, _ := resolver(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m := new(mdns.Msg)
			m.SetReply(r)
			m.Truncated = true
			w.WriteMsg(m)
			return
		}
		answer(w, r)
	})
	p := proxy(t, Config{Servers: []string{up}})
	if r := send(t, p, query("many.example", mdns.TypeA), false); !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("plain UDP: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
	if r := send(t, p, query("many.example", mdns.TypeA), true); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("TCP: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
	m := query("many.example", mdns.TypeA)
	m.SetEdns0(4096, false)
	if r := send(t, p, m, false); r.Truncated || len(r.Answer) != 100 || r.IsEdns0() == nil {
		t.Errorf("EDNS: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
	m = query("many.example", mdns.TypeA)
	m.SetEdns0(100, false) // less than is allowed
	if r := send(t, p, m, false); !r.Truncated || r.IsEdns0() == nil {
		t.Errorf("small EDNS: %v", r)
	}
}

// TestSpoof: datagrams that are not the answer are passed over.
func TestSpoof(t *testing.T) {
	up, _ := resolver(t, func(w mdns.ResponseWriter, r *mdns.Msg) {
		reply := func(change func(*mdns.Msg)) {
			m := new(mdns.Msg)
			m.SetReply(r)
			rr, _ := mdns.NewRR(r.Question[0].Name + " 300 A 6.6.6.6")
			m.Answer = []mdns.RR{rr}
			change(m)
			w.WriteMsg(m)
		}
		reply(func(m *mdns.Msg) { m.Id++ })
		reply(func(m *mdns.Msg) { m.Question[0].Name = "b.example." })
		reply(func(m *mdns.Msg) { m.Question[0].Qtype = mdns.TypeAAAA })
		reply(func(m *mdns.Msg) { m.Question = nil })
		reply(func(m *mdns.Msg) { m.Response = false })
		w.Write([]byte("garbage"))
		reply(func(m *mdns.Msg) { m.Answer[0].(*mdns.A).A = net.IPv4(8, 8, 1, 1) })
	})
	p := proxy(t, Config{Servers: []string{up}})
	expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
}

func TestOwnNames(t *testing.T) {
	c := Config{Servers: []string{closed(t)}, Policy: engine(t, policy.Policy{}), Gateway4: netip.MustParseAddr("10.0.2.1"), Gateway6: netip.MustParseAddr("fd00::1")}
	p := proxy(t, c)
	expect(t, p, "host.hutch.internal", mdns.TypeA, "NOERROR 10.0.2.1")
	expect(t, p, "HOST.hutch.internal", mdns.TypeAAAA, "NOERROR fd00::1")
	expect(t, p, "host.hutch.internal", mdns.TypeMX, "NOERROR")
	expect(t, p, "other.hutch.internal", mdns.TypeA, "NXDOMAIN")
	expect(t, p, "localhost", mdns.TypeA, "NOERROR 127.0.0.1")
	expect(t, p, "x.localhost", mdns.TypeAAAA, "NOERROR ::1")
	if got := p.Names(c.Gateway6); !slices.Equal(got, []string{HostName}) {
		t.Errorf("the gateway's names: %v", got)
	}
	c.NoIPv6, c.Gateway6 = true, netip.Addr{}
	expect(t, proxy(t, c), "host.hutch.internal", mdns.TypeAAAA, "NOERROR")
}

func TestFamiliesAndTypes(t *testing.T) {
	up, n := resolver(t, zone("a.example. 300 A 8.8.1.1", "a.example. 300 AAAA 2606::1", "a.example. 300 HTTPS 1 . alpn=h3 ipv4hint=8.8.1.1"))
	p := proxy(t, Config{Servers: []string{up}, NoIPv6: true})
	expect(t, p, "a.example", mdns.TypeAAAA, "NOERROR")
	expect(t, p, "a.example", mdns.TypeHTTPS, "NOERROR")
	if n.Load() != 0 {
		t.Errorf("%d queries", n.Load())
	}
	expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
	p = proxy(t, Config{Servers: []string{up}, NoIPv4: true})
	expect(t, p, "a.example", mdns.TypeA, "NOERROR")
	expect(t, p, "a.example", mdns.TypeANY, "NOTIMP")
	expect(t, p, "a.example", mdns.TypeAXFR, "REFUSED")
	m := query("version.bind", mdns.TypeTXT)
	m.Question[0].Qclass = mdns.ClassCHAOS
	if r := send(t, p, m, false); r.Rcode != mdns.RcodeRefused {
		t.Errorf("CHAOS: %v", r)
	}
}

func TestMalformed(t *testing.T) {
	p := proxy(t, Config{Servers: []string{closed(t)}})
	handle := func(b []byte) []byte { return p.Handle(context.Background(), b, false) }
	good, _ := query("a.example", mdns.TypeA).Pack()
	response := slices.Clone(good)
	response[2] |= 0x80
	for _, b := range [][]byte{nil, {1}, good[:11], response, make([]byte, 70000)} {
		if r := handle(b); r != nil {
			t.Errorf("%d bytes got a reply", len(b))
		}
	}
	code := func(b []byte) int {
		r := handle(b)
		if len(r) < 12 {
			t.Errorf("%x: no reply", b)
			return -1
		}
		return int(r[3] & 15)
	}
	for want, change := range map[int]func([]byte) []byte{
		mdns.RcodeFormatError:    func(b []byte) []byte { b[5] = 2; return b },
		mdns.RcodeNotImplemented: func(b []byte) []byte { b[2] |= 0x10; return b },
	} {
		if got := code(change(slices.Clone(good))); got != want {
			t.Errorf("code %d, want %d", got, want)
		}
	}
	cut := slices.Clone(good[:len(good)-3])
	loop := append(slices.Clone(good[:12]), 0xc0, 12, 0, 1, 0, 1)
	extra := slices.Clone(good)
	extra[11] = 9 // additional records that are not there
	none := slices.Clone(good[:12])
	none[5] = 0
	for _, b := range [][]byte{cut, loop, extra, none} {
		if got := code(b); got != mdns.RcodeFormatError {
			t.Errorf("%x: code %d", b, got)
		}
	}
}

func TestHostsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hosts")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("# comment\n127.0.0.1 localhost blocked.example\n8.8.7.7 Known.Example alias # x\n2606::7 known.example\nnonsense known.example\n10.1.1.1 inside.example\n")
	up, _ := resolver(t, zone("later.example. 300 A 8.8.1.1"))
	p := proxy(t, Config{Servers: []string{up}, Hosts: file})
	expect(t, p, "known.example", mdns.TypeA, "NOERROR 8.8.7.7")
	expect(t, p, "known.example", mdns.TypeAAAA, "NOERROR 2606::7")
	expect(t, p, "alias", mdns.TypeA, "NOERROR 8.8.7.7")
	expect(t, p, "inside.example", mdns.TypeA, "NXDOMAIN")
	expect(t, p, "blocked.example", mdns.TypeA, "NXDOMAIN")
	if got := p.Names(netip.MustParseAddr("8.8.7.7")); !slices.Equal(got, []string{"known.example", "alias"}) {
		t.Errorf("names: %v", got)
	}
	expect(t, p, "later.example", mdns.TypeA, "NOERROR 8.8.1.1")
	write("8.8.7.8 later.example\n")
	p.hosts.mu.Lock()
	p.hosts.checked = time.Now().Add(-time.Minute)
	p.hosts.mu.Unlock()
	expect(t, p, "later.example", mdns.TypeA, "NOERROR 8.8.7.8")
}

func TestServers(t *testing.T) {
	up, _ := resolver(t, zone("a.example. 300 A 8.8.1.1"))
	_, port, _ := net.SplitHostPort(up)
	looked := 0
	p := proxy(t, Config{Servers: []string{"dns.example:" + port}, Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		looked++
		if host != "dns.example" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	for range 3 {
		expect(t, p, "a.example", mdns.TypeA, "NOERROR 8.8.1.1")
	}
	if looked != 1 {
		t.Errorf("resolved %d times", looked)
	}

	conf := filepath.Join(t.TempDir(), "resolv.conf")
	os.WriteFile(conf, []byte("; c\nsearch one.example TWO.example. -bad\nnameserver 127.0.0.9\nnameserver fe80::1%lo\nnameserver junk\noptions ndots:2\n"), 0o644)
	r := resolvFile{path: conf}
	var got []string
	for _, s := range r.current(time.Now()) {
		got = append(got, s.addr.String())
	}
	if diff := cmp.Diff([]string{"127.0.0.9", "fe80::1%lo"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"one.example", "two.example"}, Search(conf)); diff != "" {
		t.Error(diff)
	}
	r = resolvFile{path: "/nonexistent"}
	if l := r.current(time.Now()); len(l) != 1 || l[0].addr.String() != "127.0.0.1" {
		t.Errorf("without a file: %v", l)
	}

	for s, want := range map[string]string{"10.0.0.53": "10.0.0.53:53", "10.0.0.53:5353": "10.0.0.53:5353", "fd00::53": "[fd00::53]:53", "[fd00::53]": "[fd00::53]:53",
		"[fd00::53]:99": "[fd00::53]:99", "::ffff:10.0.0.1": "10.0.0.1:53"} {
		srv, err := parseServer(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got, _ := srv.address(context.Background(), nil); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
	for field, c := range map[string]Config{
		"Servers[1]": {Servers: []string{"1.1.1.1", "bad name"}}, "Servers[0]": {Servers: []string{"1.1.1.1:0"}}, "Timeout": {Timeout: -1}, "InFlight": {InFlight: -1},
		"Servers": {Servers: make([]string, 17)}, "Policy": {},
	} {
		_, err := New(c)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, s := range []string{"", ":53", "[fd00::53", "1.1.1.1:x", "http://x"} {
		if _, err := parseServer(s); err == nil {
			t.Errorf("%q is a server", s)
		}
	}
}

func TestServeTCP(t *testing.T) {
	up, _ := resolver(t, zone("a.example. 300 A 8.8.1.1"))
	p := proxy(t, Config{Servers: []string{up}})
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(done); p.ServeTCP(ctx, theirs, netip.AddrPort{}) }()
	c := &mdns.Conn{Conn: ours}
	for range 3 {
		m := query("a.example", mdns.TypeA)
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		if r, err := c.ReadMsg(); err != nil || r.Id != m.Id || len(r.Answer) != 1 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	cancel()
	<-done
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	// Garbage closes the connection.
	ours, theirs = net.Pipe()
	go p.ServeTCP(context.Background(), theirs, netip.AddrPort{})
	ours.Write(append(binary.BigEndian.AppendUint16(nil, 3), 1, 2, 3))
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after garbage: %v", err)
	}
}

func TestPins(t *testing.T) {
	var p pins
	now := time.Now()
	a := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{9, byte(i >> 16), byte(i >> 8), byte(i)}) }
	p.add("short", a(0), time.Second, now)
	p.add("long", a(0), 10*time.Hour, now)
	p.add("long", a(0), time.Second, now) // does not shorten it
	for after, want := range map[time.Duration][]string{0: {"short", "long"}, minPin - 1: {"short", "long"}, minPin: {"long"}, maxTTL: nil} {
		if got := p.names(a(0), now.Add(after)); !slices.Equal(got, want) {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
	for i := range 3 * maxPins {
		p.add("n", a(i), time.Hour, now)
	}
	if len(p.order) != maxPins || len(p.byIP) != maxPins {
		t.Errorf("%d pins, %d addresses", len(p.order), len(p.byIP))
	}
	if p.names(a(0), now) != nil || p.names(a(3*maxPins-1), now) == nil {
		t.Error("the oldest do not make way")
	}
}
