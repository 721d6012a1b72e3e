package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
)

// HostName is the name by which the guest reaches the host.
const HostName = "host.hutch.internal"

const (
	// DefaultTimeout is how long a query may take in all.
	DefaultTimeout = 5 * time.Second
	maxTimeout     = time.Minute
	// maxServers bounds the upstream resolvers.
	maxServers = 16
	// DefaultInFlight is how many queries may wait for an answer at once.
	DefaultInFlight = 256
)

// Config says how a Proxy answers.
type Config struct {
	// Policy says which names may be resolved and which addresses answered. It
	// is required.
	Policy *policy.Engine
	// Servers are the upstream resolvers, tried in this order: an address or a
	// host name, each with an optional port ("10.0.0.53", "[fd00::53]:5353",
	// "dns.example.com:53"). None means those of ResolvConf.
	Servers []string
	// Timeout is how long a query may take in all; 0 is DefaultTimeout.
	Timeout time.Duration
	// AllowRebind lets names resolve to private and other local addresses that
	// no address rule allows.
	AllowRebind bool
	// ResolvConf and Hosts are the host's files; "" is /etc/resolv.conf and
	// /etc/hosts. They are read again when they change.
	ResolvConf string
	Hosts      string
	// Gateway4 and Gateway6 are what HostName stands for, one or both.
	Gateway4, Gateway6 netip.Addr
	// NoIPv4 and NoIPv6 say that the guest has no use for such addresses: the
	// answer to a query for them is empty.
	NoIPv4, NoIPv6 bool
	// InFlight bounds the queries that wait for an answer; 0 is DefaultInFlight.
	InFlight int
	// Dial connects to upstream resolvers; nil is a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup resolves host names of Servers; nil is the host's own resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Log is told of every query that was answered, from its goroutine; may be nil.
	Log func(Query)
}

// Outcome is what became of a query.
type Outcome string

// The outcomes of a query.
const (
	Answered Outcome = "answered"
	Denied   Outcome = "denied"  // by the policy
	Rebind   Outcome = "rebind"  // it led to a local address only
	Failed   Outcome = "failed"  // no resolver answered in time
	Refused  Outcome = "refused" // of a kind that is not served, or malformed
)

// Query is a query that was answered.
type Query struct {
	Name    string // lower case, without the final dot; "" if it could not be read
	Type    string // such as "A"
	Outcome Outcome
	RCode   string
	Rule    int // of the policy when Denied, otherwise policy.NoRule
	Addrs   []netip.Addr
	Took    time.Duration
}

// ConfigError says which field of a Config is at fault.
type ConfigError struct {
	Field string
	Err   error
}

func (e *ConfigError) Error() string { return "dns: " + e.Field + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// Check says what is wrong with c: a *[ConfigError], or nil. The policy is not
// looked at.
func (c *Config) Check() error {
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		return &ConfigError{"Timeout", fmt.Errorf("%v, want up to %v", c.Timeout, maxTimeout)}
	}
	if len(c.Servers) > maxServers {
		return &ConfigError{"Servers", fmt.Errorf("%d, want at most %d", len(c.Servers), maxServers)}
	}
	for i, s := range c.Servers {
		if _, err := parseServer(s); err != nil {
			return &ConfigError{fmt.Sprintf("Servers[%d]", i), err}
		}
	}
	if c.InFlight < 0 {
		return &ConfigError{"InFlight", fmt.Errorf("%d is negative", c.InFlight)}
	}
	return nil
}

// New checks c and makes a Proxy of it. Nothing is opened until a query comes.
func New(c Config) (*Proxy, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Policy == nil {
		return nil, &ConfigError{"Policy", errors.New("missing")}
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.InFlight == 0 {
		c.InFlight = DefaultInFlight
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Lookup == nil {
		c.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	p := &Proxy{cfg: c, slots: make(chan struct{}, c.InFlight), hosts: hostsFile{path: orElse(c.Hosts, "/etc/hosts")}}
	p.up = upstreams{cfg: &p.cfg, system: resolvFile{path: orElse(c.ResolvConf, "/etc/resolv.conf")}}
	for _, s := range c.Servers {
		srv, _ := parseServer(s)
		p.up.fixed = append(p.up.fixed, srv)
	}
	return p, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// parseServer reads an address or host name with an optional port.
func parseServer(s string) (*server, error) {
	host, port := s, uint16(53)
	if a, err := netip.ParseAddr(s); err == nil {
		return &server{addr: a.Unmap(), port: port}, nil
	}
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q: the port is not a number from 1 to 65535", s)
		}
		host, port = h, uint16(n)
	} else if inner, ok := strings.CutPrefix(s, "["); ok {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return nil, fmt.Errorf("%q: no closing bracket", s)
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return &server{addr: a.Unmap(), port: port}, nil
	}
	if err := policy.ToDomain(host).CheckName(); err != nil {
		return nil, fmt.Errorf("%q: want an address or host name, with an optional port: %w", s, err)
	}
	return &server{host: policy.NormalName(host), port: port}, nil
}
