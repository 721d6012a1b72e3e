package sandbox

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hutchvm/hutch/netstack"
	"github.com/hutchvm/hutch/netstack/policy"
)

// PortBinding publishes a port of the guest on the host.
type PortBinding struct {
	// Address is where the host listens; the zero value is 127.0.0.1. The
	// unspecified addresses, 0.0.0.0 and ::, stand for all of their family.
	Address netip.Addr `json:"address,omitzero"`
	// Host is the port there; 0 takes a free one, which Ports tells.
	Host uint16 `json:"host"`
	// Guest is the port in the guest, on all its addresses.
	Guest uint16 `json:"guest"`
	UDP   bool   `json:"udp,omitempty"` // instead of TCP
}

var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// String writes a binding as "127.0.0.1:8080->80/tcp".
func (b PortBinding) String() string {
	return fmt.Sprintf("%v->%d/%v", netip.AddrPortFrom(b.address(), b.Host), b.Guest, b.proto())
}

func (b PortBinding) address() netip.Addr {
	if !b.Address.IsValid() {
		return localhost
	}
	return b.Address
}

func (b PortBinding) proto() policy.Proto {
	if b.UDP {
		return policy.UDP
	}
	return policy.TCP
}

// sameHost tells whether two bindings listen at the same place.
func (b PortBinding) sameHost(o PortBinding) bool {
	return b.UDP == o.UDP && b.Host == o.Host && b.Host != 0 && b.address() == o.address()
}

// WithPorts publishes TCP ports: each port of the host, on 127.0.0.1, leads to a
// port of the guest. Host port 0 takes a free one; see [Sandbox.Ports]. A
// port that is in use makes Create fail before anything boots. Who may connect
// is up to the policy's ingress rules.
func WithPorts(ports map[uint16]uint16) Option { return withPorts(ports, false) }

// WithPortsUDP publishes UDP ports.
func WithPortsUDP(ports map[uint16]uint16) Option { return withPorts(ports, true) }

func withPorts(ports map[uint16]uint16, udp bool) Option {
	var list []PortBinding
	for host, guest := range ports {
		list = append(list, PortBinding{Host: host, Guest: guest, UDP: udp})
	}
	slices.SortFunc(list, func(a, b PortBinding) int { return int(a.Host) - int(b.Host) })
	return WithPortBindings(list...)
}

// WithPortBindings publishes ports on chosen addresses. A binding replaces an
// earlier one of the same address, port and protocol.
func WithPortBindings(bindings ...PortBinding) Option {
	return func(c *config) {
		for _, b := range bindings {
			c.Network.Ports = append(slices.DeleteFunc(slices.Clone(c.Network.Ports), b.sameHost), b)
		}
	}
}

// maxPorts bounds the published ports of one sandbox.
const maxPorts = 1024

func (n *networkConfig) checkPorts(off bool) error {
	if off && len(n.Ports) > 0 {
		return invalid("WithPorts", "%v: the policy of WithNetwork has no network", n.Ports[0])
	}
	if len(n.Ports) > maxPorts {
		return invalid("WithPorts", "%d ports, want at most %d", len(n.Ports), maxPorts)
	}
	for _, b := range n.Ports {
		if b.Guest == 0 {
			return invalid("WithPorts", "%v: the guest's port is 0", b)
		}
	}
	return nil
}

// publish opens the ports.
func (n *network) publish(bindings []PortBinding) error {
	for _, b := range bindings {
		at, err := n.stack.Listen(netstack.Binding{Proto: b.proto(), Host: netip.AddrPortFrom(b.address(), b.Host), Guest: b.Guest})
		if err != nil {
			return fmt.Errorf("WithPorts: %w", err)
		}
		b.Address, b.Host = at.Addr().Unmap(), at.Port()
		n.ports = append(n.ports, b)
	}
	return nil
}

// Ports are the published ports, with the host's addresses and ports as they are.
func (s *Sandbox) Ports() []PortBinding {
	if s.remote != nil {
		return slices.Clone(s.info.Ports)
	}
	if s.devices.net == nil {
		return nil
	}
	return slices.Clone(s.devices.net.ports)
}
