package guest

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

var (
	errNoCard   = errors.New("no such network card")
	errBadMAC   = errors.New("not a hardware address")
	errNetlink  = errors.New("malformed answer of the kernel")
	errOnlyLink = errors.New("want an address with the length of its network")
)

// setUpNetwork configures the network card. Everything goes to the kernel in
// one message, and nothing is waited for.
func setUpNetwork(m *proto.Network) *proto.SetupError {
	fail := func(field string, err error) *proto.SetupError {
		return setupError(proto.SetupNetwork, "Network"+field, err)
	}
	name, index, err := cardByMAC(m.MAC)
	if err != nil {
		return fail(".MAC", withName(m.MAC, err))
	}
	// Nobody else is on this network: no duplicates to look for, and the
	// gateway's advertisements are not needed.
	for key, value := range map[string]string{"accept_dad": "0", "dad_transmits": "0", "accept_ra": "0"} {
		os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/"+key, []byte(value), 0)
	}
	// Segments as large as can be: each costs the host as much as a small one.
	os.WriteFile("/proc/sys/net/ipv4/tcp_tso_rtt_log", []byte("20"), 0)
	var b batch
	b.linkUp(index, m.MTU)
	for _, s := range m.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fail(".Addresses", withName(s, errOnlyLink))
		}
		b.address(index, p)
	}
	for _, s := range m.Gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fail(".Gateways", withName(s, err))
		}
		if m.GatewayMAC != "" {
			mac, err := parseMAC(m.GatewayMAC)
			if err != nil {
				return fail(".GatewayMAC", withName(m.GatewayMAC, err))
			}
			b.neighbour(index, a, mac)
		}
		b.defaultRoute(index, a)
	}
	if what, err := b.send(); err != nil {
		return fail("", withName(what, err))
	}
	if len(m.Nameservers) > 0 {
		if err := os.MkdirAll("/etc", 0o755); err != nil {
			return fail(".Nameservers", err)
		}
		if err := replaceFile("/etc/resolv.conf", resolvConf(m)); err != nil {
			return fail(".Nameservers", err)
		}
	}
	return nil
}

func resolvConf(m *proto.Network) string {
	s := ""
	for _, n := range m.Nameservers {
		s += "nameserver " + n + "\n"
	}
	if len(m.Search) > 0 {
		s += "search " + strings.Join(m.Search, " ") + "\n"
	}
	return s
}

// cardByMAC finds a network card.
func cardByMAC(mac string) (name string, index int, err error) {
	const dir = "/sys/class/net"
	cards, err := os.ReadDir(dir)
	if err != nil {
		return "", 0, err
	}
	for _, c := range cards {
		got, err := os.ReadFile(dir + "/" + c.Name() + "/address")
		if err != nil || strings.TrimSpace(string(got)) != mac {
			continue
		}
		text, err := os.ReadFile(dir + "/" + c.Name() + "/ifindex")
		if err != nil {
			return "", 0, err
		}
		index, err := strconv.Atoi(strings.TrimSpace(string(text)))
		return c.Name(), index, err
	}
	return "", 0, errNoCard
}

func parseMAC(s string) (mac [6]byte, err error) {
	parts := strings.Split(s, ":")
	if len(parts) != len(mac) {
		return mac, errBadMAC
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 8)
		if err != nil {
			return mac, errBadMAC
		}
		mac[i] = byte(n)
	}
	return mac, nil
}

const (
	firstWindow = 64   // segments that TCP may send before the first answer
	minRTO      = 2000 // milliseconds before TCP sends again
)

// batch is a list of requests to the kernel, in the order in which they are to
// be carried out.
type batch struct {
	b    []byte
	what []string // each request, in words
}

// begin begins a request; end has to follow.
func (q *batch) begin(what string, typ, flags uint16, body []byte) (start int) {
	q.what = append(q.what, what)
	start = len(q.b)
	q.b = append(q.b, 0, 0, 0, 0)
	q.b = binary.NativeEndian.AppendUint16(q.b, typ)
	q.b = binary.NativeEndian.AppendUint16(q.b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	q.b = binary.NativeEndian.AppendUint32(q.b, uint32(len(q.what))) // the sequence number
	q.b = append(q.b, 0, 0, 0, 0)
	q.b = append(q.b, body...)
	return start
}

func (q *batch) end(start int) {
	binary.NativeEndian.PutUint32(q.b[start:], uint32(len(q.b)-start))
	q.align()
}

func (q *batch) align() {
	for len(q.b)%4 != 0 {
		q.b = append(q.b, 0)
	}
}

func (q *batch) attr(typ uint16, value []byte) {
	q.b = binary.NativeEndian.AppendUint16(q.b, uint16(4+len(value)))
	q.b = binary.NativeEndian.AppendUint16(q.b, typ)
	q.b = append(q.b, value...)
	q.align()
}

func (q *batch) attr32(typ uint16, value uint32) {
	q.attr(typ, binary.NativeEndian.AppendUint32(nil, value))
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (q *batch) linkUp(index int, mtu uint32) {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)  // ifi_flags
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP) // ifi_change
	at := q.begin("link", unix.RTM_NEWLINK, 0, body)
	if mtu != 0 {
		q.attr32(unix.IFLA_MTU, mtu)
	}
	q.end(at)
}

func (q *batch) address(index int, p netip.Prefix) {
	body := []byte{familyOf(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	at := q.begin("address "+p.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
	q.attr(unix.IFA_LOCAL, p.Addr().AsSlice())
	q.attr(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is6() {
		q.attr32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
	q.end(at)
}

func (q *batch) neighbour(index int, a netip.Addr, mac [6]byte) {
	body := make([]byte, 12) // ndmsg
	body[0] = familyOf(a)
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint16(body[8:], unix.NUD_PERMANENT)
	at := q.begin("neighbour "+a.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
	q.attr(unix.NDA_DST, a.AsSlice())
	q.attr(unix.NDA_LLADDR, mac[:])
	q.end(at)
}

func (q *batch) defaultRoute(index int, gateway netip.Addr) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = familyOf(gateway)
	body[4] = unix.RT_TABLE_MAIN
	body[5] = unix.RTPROT_BOOT
	body[6] = unix.RT_SCOPE_UNIVERSE
	body[7] = unix.RTN_UNICAST
	at := q.begin("route by "+gateway.String(), unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
	q.attr32(unix.RTA_OIF, uint32(index))
	q.attr(unix.RTA_GATEWAY, gateway.AsSlice())
	// The way to the host loses nothing, but machines may get no CPU for a while:
	// what is sent again for nothing makes TCP slow.
	metrics := batch{}
	metrics.attr32(unix.RTAX_INITCWND, firstWindow)
	metrics.attr32(unix.RTAX_RTO_MIN, minRTO)
	q.attr(unix.RTA_METRICS, metrics.b)
	q.end(at)
}

// send has the kernel carry out the requests. After an error it tells which one
// failed; those behind it have been tried as well.
func (q *batch) send() (what string, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return "netlink", os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, q.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return "netlink", os.NewSyscallError("send", err)
	}
	buf := make([]byte, 64<<10)
	for answered := 0; answered < len(q.what); {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "netlink", os.NewSyscallError("receive", err)
		}
		for rest := buf[:n]; len(rest) > 0; answered++ {
			if len(rest) < unix.NLMSG_HDRLEN+4 {
				return "netlink", errNetlink
			}
			size := int(binary.NativeEndian.Uint32(rest))
			seq := int(binary.NativeEndian.Uint32(rest[8:]))
			if size < unix.NLMSG_HDRLEN+4 || size > len(rest) || seq < 1 || seq > len(q.what) || binary.NativeEndian.Uint16(rest[4:]) != unix.NLMSG_ERROR {
				return "netlink", errNetlink
			}
			if errno := int32(binary.NativeEndian.Uint32(rest[unix.NLMSG_HDRLEN:])); errno != 0 {
				return q.what[seq-1], unix.Errno(-errno)
			}
			rest = rest[min((size+3)&^3, len(rest)):]
		}
	}
	return "", nil
}
