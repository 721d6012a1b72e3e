package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/hutchvm/hutch/netstack/policy"
)

func offline(context.Context, string, string) (net.Conn, error) { return nil, errors.New("offline") }

// FuzzHandle sends the guest's bytes. Every reply is one, and small enough.
func FuzzHandle(f *testing.F) {
	for _, m := range []*mdns.Msg{query("a.example", mdns.TypeA), query("host.hutch.internal", mdns.TypeAAAA), query(".", mdns.TypeNS), query("x.y", mdns.TypeANY)} {
		b, _ := m.Pack()
		f.Add(b, false)
		m.SetEdns0(1232, true)
		b, _ = m.Pack()
		f.Add(b, true)
	}
	f.Add([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, false)
	p := proxy(f, Config{Servers: []string{"192.0.2.1"}, Dial: offline, Gateway4: netip.MustParseAddr("10.0.2.1")})
	f.Fuzz(func(t *testing.T, b []byte, tcp bool) {
		reply := p.Handle(context.Background(), b, tcp)
		if reply == nil {
			return
		}
		var parser dnsmessage.Parser
		h, err := parser.Start(reply)
		if err != nil || !h.Response || reply[0] != b[0] || reply[1] != b[1] {
			t.Fatalf("reply %x: %v", reply, err)
		}
		if !tcp && len(reply) > maxUDP {
			t.Fatalf("%d bytes", len(reply))
		}
		if err := new(mdns.Msg).Unpack(reply); err != nil {
			t.Fatalf("reply %x: %v", reply, err)
		}
	})
}

// FuzzAnswer takes a resolver's bytes for the answer. What comes of them is a
// proper reply that leads to no local address.
func FuzzAnswer(f *testing.F) {
	for _, list := range [][]string{
		{"a.example. 300 A 8.8.1.1", "a.example. 300 A 10.0.0.1"},
		{"a.example. 300 CNAME b.example.", "b.example. 300 A 8.8.1.1"},
		{"a.example. 300 CNAME a.example.", "a.example. 1 AAAA ::1"},
		{"a.example. 300 MX 1 b.example.", "a.example. 300 CAA 0 issue \"x\"", "a.example. 4 RP b. c."},
	} {
		m := query("a.example", mdns.TypeA)
		m.Response = true
		for _, s := range list {
			rr, err := mdns.NewRR(s)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
			m.Ns = append(m.Ns, rr)
		}
		m.Compress = true
		b, _ := m.Pack()
		f.Add(b, uint16(mdns.TypeA))
		f.Add(b, uint16(mdns.TypeMX))
	}
	p := proxy(f, Config{})
	f.Fuzz(func(t *testing.T, b []byte, qtype uint16) {
		q := query("a.example", qtype)
		raw, _ := q.Pack()
		req, rcode, ok := parseRequest(raw)
		if !ok || rcode != dnsmessage.RCodeSuccess {
			return
		}
		req.began, req.limit, req.dnssec = time.Now(), maxTCP, qtype&1 == 1
		var id uint16
		if len(b) >= 2 {
			id = uint16(b[0])<<8 | uint16(b[1])
		}
		m, err := parseAnswer(b, id, req)
		if err != nil {
			return
		}
		reply := p.reply(req, p.filter(req, m))
		var parser dnsmessage.Parser
		if _, err := parser.Start(reply); err != nil {
			t.Fatalf("reply %x: %v", reply, err)
		}
		if err := parser.SkipAllQuestions(); err != nil {
			t.Fatal(err)
		}
		answers, err := parser.AllAnswers()
		if err != nil {
			t.Fatalf("reply %x: %v", reply, err)
		}
		for _, r := range answers {
			var addr netip.Addr
			switch body := r.Body.(type) {
			case *dnsmessage.AResource:
				addr = netip.AddrFrom4(body.A)
			case *dnsmessage.AAAAResource:
				addr = netip.AddrFrom16(body.AAAA)
			default:
				continue
			}
			if policy.GroupOf(addr, nil) != policy.GroupPublic {
				t.Fatalf("%v was passed on", addr)
			}
		}
	})
}
