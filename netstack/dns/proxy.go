package dns

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hutchvm/hutch/netstack/policy"
)

const (
	minMessage = 12   // a header
	plainUDP   = 512  // what fits into UDP without EDNS
	maxUDP     = 4096 // and with it, at most
	maxTCP     = 65535
	// answerTTL is the time to live of answers of our own, in seconds.
	answerTTL = 60
	// maxRecords bounds the records of one section of a message.
	maxRecords = 1024
)

// Types that dnsmessage does not name.
const (
	typeIXFR  dnsmessage.Type = 251
	typeMAILB dnsmessage.Type = 253
	typeMAILA dnsmessage.Type = 254
	typeDNAME dnsmessage.Type = 39
	typeRRSIG dnsmessage.Type = 46
)

// Proxy answers queries. Its methods may be called from any goroutine. It holds
// nothing open between queries.
type Proxy struct {
	cfg   Config
	up    upstreams
	hosts hostsFile
	pins  pins
	slots chan struct{} // one for each query that waits for an upstream
}

var gatewayNames = []string{HostName}

// Names are the names for which the guest was told addr, as long as their time
// to live is not over (and for a minute at least). The caller must not change
// the list.
func (p *Proxy) Names(addr netip.Addr) []string {
	addr = policy.Normal(addr)
	if addr == p.cfg.Gateway4 || addr == p.cfg.Gateway6 {
		return gatewayNames
	}
	return p.pins.names(addr, time.Now())
}

// request is a query that was understood.
type request struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	name     string // of the question, normal
	limit    int    // bytes of the reply
	edns     bool
	dnssec   bool // DO of EDNS
	tcp      bool
	began    time.Time
}

// Handle answers one message, within the time-out. nil is to send nothing, the
// only right answer to what is no query. tcp says that the message came over
// TCP, where a reply need not fit a datagram.
func (p *Proxy) Handle(ctx context.Context, message []byte, tcp bool) []byte {
	began := time.Now()
	req, rcode, ok := parseRequest(message)
	if !ok {
		return nil
	}
	req.tcp, req.began = tcp, began
	if tcp {
		req.limit = maxTCP
	}
	if rcode != dnsmessage.RCodeSuccess {
		return p.reply(req, &answer{rcode: rcode, outcome: Refused, rule: policy.NoRule})
	}
	return p.reply(req, p.answer(ctx, req))
}

// parseRequest reads a query. ok is false when there is nothing to answer; an
// rcode other than success is the answer.
func parseRequest(message []byte) (req *request, rcode dnsmessage.RCode, ok bool) {
	if len(message) < minMessage || len(message) > maxTCP {
		return nil, 0, false
	}
	var parser dnsmessage.Parser
	h, err := parser.Start(message)
	if err != nil || h.Response {
		return nil, 0, false
	}
	req = &request{header: h, limit: plainUDP}
	if h.OpCode != 0 {
		return req, dnsmessage.RCodeNotImplemented, true
	}
	if message[4] != 0 || message[5] != 1 { // one question
		return req, dnsmessage.RCodeFormatError, true
	}
	q, err := parser.Question()
	if err != nil || parser.SkipQuestion() != dnsmessage.ErrSectionDone || parser.SkipAllAnswers() != nil || parser.SkipAllAuthorities() != nil {
		return req, dnsmessage.RCodeFormatError, true
	}
	req.question = q
	req.name = policy.NormalName(q.Name.String())
	for {
		rh, err := parser.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil {
			return req, dnsmessage.RCodeFormatError, true
		}
		if rh.Type == dnsmessage.TypeOPT {
			if req.edns { // RFC 6891: more than one
				return req, dnsmessage.RCodeFormatError, true
			}
			req.edns, req.dnssec = true, rh.DNSSECAllowed()
			req.limit = min(max(int(rh.Class), plainUDP), maxUDP)
		}
		if parser.SkipAdditional() != nil {
			return req, dnsmessage.RCodeFormatError, true
		}
	}
	if q.Class != dnsmessage.ClassINET {
		return req, dnsmessage.RCodeRefused, true
	}
	switch q.Type {
	case dnsmessage.TypeAXFR, typeIXFR, typeMAILA, typeMAILB, dnsmessage.TypeOPT:
		return req, dnsmessage.RCodeRefused, true
	case dnsmessage.TypeALL: // RFC 8482 lets a resolver refuse it
		return req, dnsmessage.RCodeNotImplemented, true
	}
	return req, dnsmessage.RCodeSuccess, true
}

// answer is what a reply says.
type answer struct {
	rcode         dnsmessage.RCode
	authentic     bool
	records, auth []dnsmessage.Resource
	outcome       Outcome
	rule          int
	addrs         []netip.Addr
}

func nothing() *answer { return &answer{outcome: Answered, rule: policy.NoRule} }

func noName(o Outcome, rule int) *answer {
	return &answer{rcode: dnsmessage.RCodeNameError, outcome: o, rule: rule}
}

// answer finds the answer to a query.
func (p *Proxy) answer(ctx context.Context, req *request) *answer {
	if a := p.known(req); a != nil {
		return a
	}
	if allow, rule := p.cfg.Policy.Name(req.name); !allow {
		return noName(Denied, rule)
	}
	if addr, ok := reverse(req.name); ok && p.local(addr) {
		return noName(Denied, policy.NoRule) // names of local addresses are nobody's business
	}
	switch req.question.Type {
	case dnsmessage.TypeHTTPS, dnsmessage.TypeSVCB:
		// They carry addresses that are not asked for and keys that would hide
		// the name in TLS. Clients do without.
		return nothing()
	case dnsmessage.TypeA:
		if p.cfg.NoIPv4 {
			return nothing()
		}
	case dnsmessage.TypeAAAA:
		if p.cfg.NoIPv6 {
			return nothing()
		}
	}
	if addrs := p.hosts.lookup(req.name, req.began); addrs != nil {
		return p.fromHosts(req, addrs)
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		return &answer{rcode: dnsmessage.RCodeServerFailure, outcome: Failed, rule: policy.NoRule}
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	m, err := p.up.exchange(ctx, req)
	if err != nil {
		return &answer{rcode: dnsmessage.RCodeServerFailure, outcome: Failed, rule: policy.NoRule}
	}
	return p.filter(req, m)
}

// known answers for the names that have a meaning of their own.
func (p *Proxy) known(req *request) *answer {
	var addrs []netip.Addr
	switch {
	case req.name == HostName:
		addrs = []netip.Addr{p.cfg.Gateway4, p.cfg.Gateway6}
	case strings.HasSuffix(req.name, ".hutch.internal") || req.name == "hutch.internal":
		return noName(Answered, policy.NoRule)
	case req.name == "localhost" || strings.HasSuffix(req.name, ".localhost"): // RFC 6761
		addrs = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	default:
		return nil
	}
	a := nothing()
	p.put(req, a, addrs)
	return a
}

// fromHosts answers with addresses of /etc/hosts.
func (p *Proxy) fromHosts(req *request, addrs []netip.Addr) *answer {
	a := nothing()
	var fine []netip.Addr
	for _, addr := range addrs {
		if !p.local(addr) {
			fine = append(fine, addr)
		}
	}
	if fine == nil {
		return noName(Rebind, policy.NoRule)
	}
	p.put(req, a, fine)
	for _, addr := range a.addrs {
		p.pins.add(req.name, addr, answerTTL*time.Second, req.began)
	}
	return a
}

// put adds those addresses to an answer that were asked for.
func (p *Proxy) put(req *request, a *answer, addrs []netip.Addr) {
	h := dnsmessage.ResourceHeader{Name: req.question.Name, Class: dnsmessage.ClassINET, TTL: answerTTL}
	for _, addr := range addrs {
		switch {
		case addr.Is4() && req.question.Type == dnsmessage.TypeA && !p.cfg.NoIPv4:
			a.records = append(a.records, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && req.question.Type == dnsmessage.TypeAAAA && !p.cfg.NoIPv6:
			a.records = append(a.records, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		default:
			continue
		}
		a.addrs = append(a.addrs, addr)
	}
}

// local tells whether an address must not be answered: it is no public one, and
// no rule about addresses lets the guest reach it.
func (p *Proxy) local(addr netip.Addr) bool {
	return !p.cfg.AllowRebind && p.cfg.Policy.Group(addr) != policy.GroupPublic && !p.cfg.Policy.Reachable(addr)
}

// reply packs an answer and tells the log.
func (p *Proxy) reply(req *request, a *answer) []byte {
	if p.cfg.Log != nil {
		p.cfg.Log(Query{
			Name: req.name, Type: strings.TrimPrefix(req.question.Type.String(), "Type"), Outcome: a.outcome, RCode: strings.TrimPrefix(a.rcode.String(), "RCode"),
			Rule: a.rule, Addrs: a.addrs, Took: time.Since(req.began),
		})
	}
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: req.header.ID, Response: true, OpCode: req.header.OpCode, RecursionDesired: req.header.RecursionDesired, RecursionAvailable: true,
			CheckingDisabled: req.header.CheckingDisabled, AuthenticData: a.authentic, RCode: a.rcode,
		},
		Answers: a.records, Authorities: a.auth,
	}
	if req.question.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{req.question}
	}
	if req.edns {
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(maxUDP, dnsmessage.RCodeSuccess, req.dnssec)
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err == nil && len(b) > req.limit {
		m.Truncated, m.Answers, m.Authorities = true, nil, nil
		b, err = m.Pack()
	}
	if err != nil { // a record that can be read but not written
		m.RCode, m.Answers, m.Authorities = dnsmessage.RCodeServerFailure, nil, nil
		if b, err = m.Pack(); err != nil {
			return nil
		}
	}
	return b
}
