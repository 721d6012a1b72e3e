package netstack

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/netstack/policy"
)

// EventKind is what happened to a flow.
type EventKind uint8

// The kinds of events.
const (
	FlowOpened EventKind = iota // allowed, and the other end answered
	FlowDenied                  // refused by the policy, perhaps after FlowOpened for the name in it
	FlowFailed                  // allowed, but the other end could not be reached
	FlowClosed                  // an opened flow ended
)

func (k EventKind) String() string {
	return [...]string{"opened", "denied", "failed", "closed"}[k]
}

// FlowEvent tells of one flow.
type FlowEvent struct {
	Time time.Time
	Kind EventKind
	// Flow is what the policy was asked about, with the name of a TLS flow if it
	// was looked for.
	Flow policy.Flow
	// Guest is the guest's end: the source of an egress flow.
	Guest netip.AddrPort
	// Rule is the index of the policy rule that decided, or policy.NoRule.
	Rule int
	// Err is why the flow failed, or ended other than in order.
	Err error
	// Sent and Received are the bytes of payload that the guest sent and got,
	// when Kind is FlowClosed.
	Sent, Received uint64
}

// Stats are counters of one network, from the guest's point of view.
type Stats struct {
	TxFrames, TxBytes uint64 // Ethernet frames; a large segment is one frame
	RxFrames, RxBytes uint64
	// TxDropped were malformed, spoofed or of a kind that is not carried;
	// RxDropped found the guest without receive buffers for too long.
	TxDropped, RxDropped uint64
	TCPFlows, UDPFlows   int    // open now
	Opened               uint64 // flows since the start
	Denied, Failed       uint64
	Limited              uint64 // attempts over a limit
	Pings                uint64
}

type counters struct {
	txDropped, rxDropped   atomic.Uint64
	opened, denied, failed atomic.Uint64
	limited, pings         atomic.Uint64
	unreachable            atomic.Uint64
}

// Stats returns the counters.
func (s *Stack) Stats() Stats {
	d := s.dev.Stats()
	c := &s.counters
	return Stats{
		TxFrames: d.TxFrames, TxBytes: d.TxBytes, RxFrames: d.RxFrames, RxBytes: d.RxBytes,
		TxDropped: d.TxDrops + c.txDropped.Load(),
		RxDropped: d.RxDrops + c.rxDropped.Load(),
		TCPFlows:  len(s.slots),
		UDPFlows:  s.udp.count(),
		Opened:    c.opened.Load(), Denied: c.denied.Load(), Failed: c.failed.Load(),
		Limited: c.limited.Load(), Pings: c.pings.Load(),
	}
}

// decide asks the policy.
func (s *Stack) decide(f policy.Flow) policy.Decision {
	if s.cfg.Decide == nil {
		return policy.Decision{Allow: true, Rule: policy.NoRule}
	}
	return s.cfg.Decide(f)
}

// log counts and reports an event.
func (s *Stack) log(e FlowEvent) {
	switch e.Kind {
	case FlowOpened:
		s.counters.opened.Add(1)
	case FlowDenied:
		s.counters.denied.Add(1)
	case FlowFailed:
		s.counters.failed.Add(1)
	}
	if s.cfg.FlowLog != nil {
		e.Time = time.Now()
		s.cfg.FlowLog(e)
	}
}

// hostAddr is where the host connects to for an address that the guest uses.
func (s *Stack) hostAddr(to netip.AddrPort) netip.AddrPort {
	if !s.addrs.IsHost(to.Addr()) {
		return to
	}
	if to.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
}
