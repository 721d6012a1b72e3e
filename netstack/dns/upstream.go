package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hutchvm/hutch/netstack/policy"
)

const (
	// deadFor is how long a resolver that did not answer is tried last.
	deadFor = 30 * time.Second
	// Bounds of the time that one attempt has.
	minAttempt = 300 * time.Millisecond
	maxAttempt = 2 * time.Second
	// idleRound is how short a round of failures is to be the last one.
	idleRound = 100 * time.Millisecond
	// ednsSize is what we take by UDP: what fits any path without fragments.
	ednsSize = 1232
	// maxJunk bounds the datagrams that are no answer to our query.
	maxJunk = 64
	// resolvedFor is how long the addresses of a resolver's host name are kept.
	resolvedFor = 5 * time.Minute
)

var (
	errNoAnswer = errors.New("no resolver answered")
	errMismatch = errors.New("not the answer to the query")
	errNoAddr   = errors.New("the resolver's name has no address")
)

// server is an upstream resolver.
type server struct {
	addr netip.Addr // or else
	host string
	port uint16

	mu       sync.Mutex
	dead     time.Time // until when it is tried last
	resolved []netip.Addr
	fresh    time.Time // until when resolved holds
	turn     int       // which of them is next
}

// upstreams are the resolvers, and how they are asked.
type upstreams struct {
	cfg    *Config
	fixed  []*server // Config.Servers
	system resolvFile
}

// order is the resolvers as they are to be tried.
func (u *upstreams) order(now time.Time) []*server {
	all := u.fixed
	if len(all) == 0 {
		all = u.system.current(now)
	}
	alive, dead := make([]*server, 0, len(all)), []*server(nil)
	for _, s := range all {
		s.mu.Lock()
		if now.Before(s.dead) {
			dead = append(dead, s)
		} else {
			alive = append(alive, s)
		}
		s.mu.Unlock()
	}
	return append(alive, dead...)
}

// exchange asks the resolvers in turn, round after round, until ctx ends.
func (u *upstreams) exchange(ctx context.Context, req *request) (*dnsmessage.Message, error) {
	for {
		began := time.Now()
		list := u.order(began)
		attempt := min(max(u.cfg.Timeout/time.Duration(2*len(list)), minAttempt), maxAttempt)
		var unwilling *dnsmessage.Message
		for _, s := range list {
			m, err := u.ask(ctx, s, req, attempt)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			s.mark(err == nil)
			if err != nil {
				continue
			}
			if m.RCode == dnsmessage.RCodeSuccess || m.RCode == dnsmessage.RCodeNameError {
				return m, nil
			}
			unwilling = m
		}
		if unwilling != nil {
			return unwilling, nil
		}
		if time.Since(began) < idleRound {
			return nil, errNoAnswer // they refuse; asking again at once is of no use
		}
	}
}

func (s *server) mark(alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = time.Time{}
	if !alive {
		s.dead = time.Now().Add(deadFor)
		s.turn++
	}
}

// address is where a resolver is asked.
func (s *server) address(ctx context.Context, lookup func(context.Context, string) ([]netip.Addr, error)) (string, error) {
	port := strconv.Itoa(int(s.port))
	if s.host == "" {
		return net.JoinHostPort(s.addr.String(), port), nil
	}
	s.mu.Lock()
	addrs, fresh := s.resolved, time.Now().Before(s.fresh)
	s.mu.Unlock()
	if !fresh {
		got, err := lookup(ctx, s.host)
		switch {
		case err == nil && len(got) > 0:
			addrs = got
		case len(addrs) == 0 && err != nil:
			return "", err
		case len(addrs) == 0:
			return "", errNoAddr
		}
		s.mu.Lock()
		s.resolved, s.fresh = addrs, time.Now().Add(resolvedFor)
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return net.JoinHostPort(addrs[s.turn%len(addrs)].Unmap().String(), port), nil
}

// ask asks one resolver, by UDP and, when the answer does not fit, by TCP.
func (u *upstreams) ask(ctx context.Context, s *server, req *request, attempt time.Duration) (*dnsmessage.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	address, err := s.address(ctx, u.cfg.Lookup)
	if err != nil {
		return nil, err
	}
	query, id, err := build(req)
	if err != nil {
		return nil, err
	}
	m, err := u.overUDP(ctx, address, query, id, req)
	if err == nil && !m.Truncated {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	return u.overTCP(ctx, address, query, id, req)
}

// build makes a query of our own, with an unguessable id. The port is the
// kernel's choice, another one each time.
func build(req *request) ([]byte, uint16, error) {
	var b [2]byte
	rand.Read(b[:]) // never fails
	id := binary.BigEndian.Uint16(b[:])
	var h dnsmessage.ResourceHeader
	h.SetEDNS0(ednsSize, dnsmessage.RCodeSuccess, req.dnssec)
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true, CheckingDisabled: req.header.CheckingDisabled},
		Questions:   []dnsmessage.Question{req.question},
		Additionals: []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}},
	}
	q, err := m.Pack()
	return q, id, err
}

// until makes a connection end with ctx.
func until(ctx context.Context, c net.Conn) (stop func() bool) {
	if t, ok := ctx.Deadline(); ok {
		c.SetDeadline(t)
	}
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

func (u *upstreams) overUDP(ctx context.Context, address string, query []byte, id uint16, req *request) (*dnsmessage.Message, error) {
	c, err := u.cfg.Dial(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer until(ctx, c)()
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDP)
	for range maxJunk {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if m, err := parseAnswer(buf[:n], id, req); err == nil {
			return m, nil
		}
	}
	return nil, errMismatch
}

func (u *upstreams) overTCP(ctx context.Context, address string, query []byte, id uint16, req *request) (*dnsmessage.Message, error) {
	c, err := u.cfg.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer until(ctx, c)()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	answer, err := readFrame(c)
	if err != nil {
		return nil, err
	}
	return parseAnswer(answer, id, req)
}

// readFrame reads a message of DNS over TCP. Memory grows with what arrives.
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// parseAnswer reads an answer and checks that it is the one to our query.
func parseAnswer(b []byte, id uint16, req *request) (*dnsmessage.Message, error) {
	if len(b) < minMessage {
		return nil, errMismatch
	}
	var parser dnsmessage.Parser
	h, err := parser.Start(b)
	if err != nil {
		return nil, err
	}
	if h.ID != id || !h.Response || h.OpCode != 0 || binary.BigEndian.Uint16(b[4:]) != 1 {
		return nil, errMismatch
	}
	q, err := parser.Question()
	if err != nil {
		return nil, err
	}
	if q.Type != req.question.Type || q.Class != req.question.Class || policy.NormalName(q.Name.String()) != req.name {
		return nil, errMismatch
	}
	m := &dnsmessage.Message{Header: h}
	if h.Truncated {
		return m, nil
	}
	if parser.SkipQuestion() != dnsmessage.ErrSectionDone {
		return nil, errMismatch
	}
	if m.Answers, err = records(parser.Answer); err != nil {
		return nil, err
	}
	if m.Authorities, err = records(parser.Authority); err != nil {
		return nil, err
	}
	return m, nil
}

func records(next func() (dnsmessage.Resource, error)) (list []dnsmessage.Resource, err error) {
	for range maxRecords {
		r, err := next()
		if err == dnsmessage.ErrSectionDone {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return nil, errMismatch
}
