package dns

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxPins bounds the pairs of name and address that are remembered; beyond
	// it the oldest make way.
	maxPins = 4096
	// minPin is how long a pin holds at least: programs connect a while after
	// they resolved, whatever the time to live says.
	minPin = time.Minute
	// maxTTL bounds the time to live of what is handed out, and so that of pins.
	maxTTL = time.Hour
)

// pins remember which names led to an address. The zero value is empty.
type pins struct {
	mu    sync.RWMutex
	byIP  map[netip.Addr][]*pin
	order []*pin // in the order in which they were made; a ring once it is full
	next  int
}

type pin struct {
	name string
	addr netip.Addr
	till time.Time
}

// add remembers that name leads to addr for ttl.
func (p *pins) add(name string, addr netip.Addr, ttl time.Duration, now time.Time) {
	till := now.Add(min(max(ttl, minPin), maxTTL))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, old := range p.byIP[addr] {
		if old.name == name {
			if till.After(old.till) {
				old.till = till
			}
			return
		}
	}
	if p.byIP == nil {
		p.byIP = make(map[netip.Addr][]*pin)
	}
	e := &pin{name: name, addr: addr, till: till}
	if len(p.order) < maxPins {
		p.order = append(p.order, e)
	} else {
		p.remove(p.order[p.next])
		p.order[p.next] = e
		p.next = (p.next + 1) % maxPins
	}
	p.byIP[addr] = append(p.byIP[addr], e)
}

func (p *pins) remove(old *pin) {
	// The list is copied, for names may have given it out.
	var rest []*pin
	for _, e := range p.byIP[old.addr] {
		if e != old {
			rest = append(rest, e)
		}
	}
	if rest == nil {
		delete(p.byIP, old.addr)
		return
	}
	p.byIP[old.addr] = rest
}

// names are those that lead to addr now.
func (p *pins) names(addr netip.Addr, now time.Time) []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var list []string
	for _, e := range p.byIP[addr] {
		if now.Before(e.till) {
			list = append(list, e.name)
		}
	}
	return list
}
