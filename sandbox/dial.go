package sandbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// DialContext connects from the host to a socket in the guest. The network is
// "tcp" (or "tcp4", "tcp6") with an address such as "127.0.0.1:8000",
// "[::1]:8000" or "localhost:http", or "unix" with a path in the guest or "@" and
// an abstract name. It needs no published port and no network: the connection
// goes through the agent, which dials within the guest.
//
// The connection is a net.Conn with CloseWrite, and fits an http.Transport. Errors
// are *net.OpError, with the guest's errno where its kernel refused (as
// syscall.ECONNREFUSED). ctx bounds the attempt only. When the sandbox ends,
// the connection breaks.
func (s *Sandbox) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := s.endErr(); err != nil {
		return nil, s.opErr("dial", err)
	}
	targets, err := dialTargets(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	kind := strings.TrimRight(network, "46")
	for i, t := range targets {
		c, err := s.agent.Dial(ctx, kind, t)
		if err == nil {
			return c, nil
		}
		if i == len(targets)-1 || !errors.Is(err, syscall.ECONNREFUSED) {
			if ended := s.endErr(); ended != nil {
				err = s.opErr("dial", ended)
			}
			return nil, err
		}
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: errNoTarget}
}

var errNoTarget = errors.New("no address")

// dialTargets are the addresses in the guest that an address of DialContext
// stands for, in the order in which they are tried.
func dialTargets(ctx context.Context, network, address string) ([]string, error) {
	switch network {
	case "unix":
		if !strings.HasPrefix(address, "/") && !strings.HasPrefix(address, "@") {
			return nil, &net.AddrError{Err: "want an absolute path in the guest, or @ and a name", Addr: address}
		}
		return []string{address}, nil
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, err
	}
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	if host != "" && !strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, &net.AddrError{Err: "want an address in the guest or localhost", Addr: host}
		}
		addrs = []netip.Addr{a.Unmap()}
	}
	var list []string
	for _, a := range addrs {
		if network == "tcp4" && !a.Is4() || network == "tcp6" && a.Is4() {
			continue
		}
		list = append(list, net.JoinHostPort(a.String(), strconv.Itoa(port)))
	}
	if list == nil {
		return nil, &net.AddrError{Err: "no address of this family", Addr: host}
	}
	return list, nil
}
