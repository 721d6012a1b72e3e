package network

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
)

// chunk is how much is read and written at once.
const chunk = 128 << 10

// Guest is the first process of a guest, started with the test's address, the
// guest's address and prefix, and the gateway: from GuestArgs in the kernel's
// command line. It does not return.
func Guest() {
	fmt.Fprintln(os.Stderr, "guest:", guest())
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	select {}
}

func guest() error {
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	var addr netip.Prefix
	var gateway netip.Addr
	var host string
	for _, f := range strings.Fields(string(line)) {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "bench.addr":
			addr, err = netip.ParsePrefix(v)
		case "bench.gw":
			gateway, err = netip.ParseAddr(v)
		case "bench.host":
			host = v
		}
		if err != nil {
			return err
		}
	}
	if err := setUp(addr, gateway); err != nil {
		return err
	}
	c, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	fmt.Fprintln(c, "control")
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if err := do(host, strings.Fields(line)); err != nil {
			fmt.Fprintln(c, "error", err)
			continue
		}
		fmt.Fprintln(c, "done")
	}
}

// do is one command: "send N bytes" or "receive N bytes" each over so many streams,
// or "connect N" times.
func do(host string, args []string) error {
	var streams int
	var bytes int64
	if len(args) != 3 {
		return fmt.Errorf("%d words", len(args))
	}
	if _, err := fmt.Sscan(args[1]+" "+args[2], &streams, &bytes); err != nil {
		return err
	}
	if args[0] == "connect" {
		for range bytes {
			if err := request(host); err != nil {
				return err
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	errs := make(chan error, 2*streams)
	run := func(kind string) {
		for range streams {
			wg.Go(func() { errs <- stream(host, kind, bytes) })
		}
	}
	if args[0] == "both" {
		run("send")
		run("receive")
	} else {
		run(args[0])
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func request(host string) error {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "echo\n"); err != nil {
		return err
	}
	_, err = io.ReadAll(c)
	return err
}

// stream moves so many bytes and waits until the other end has them.
func stream(host, kind string, n int64) error {
	c, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%s %d\n", kind, n); err != nil {
		return err
	}
	if kind == "send" {
		return sendAll(c, n)
	}
	return receiveAll(c, n)
}

// sendAll sends n bytes and waits for one.
func sendAll(c net.Conn, n int64) error {
	b := make([]byte, chunk)
	for n > 0 {
		w, err := c.Write(b[:min(n, chunk)])
		if err != nil {
			return err
		}
		n -= int64(w)
	}
	_, err := io.ReadFull(c, b[:1])
	return err
}

// receiveAll receives n bytes and sends one.
func receiveAll(r net.Conn, n int64) error {
	b := make([]byte, chunk)
	for n > 0 {
		got, err := r.Read(b[:min(n, chunk)])
		if err != nil {
			return err
		}
		n -= int64(got)
	}
	_, err := r.Write(b[:1])
	return err
}

// setUp gives the first network card its address, over netlink.
func setUp(addr netip.Prefix, gateway netip.Addr) error {
	var ifi net.Interface
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		if len(i.HardwareAddr) == 6 && i.HardwareAddr[0] != 0 {
			ifi = i
			break
		}
	}
	if ifi.Index == 0 {
		return fmt.Errorf("no network card among %v", all)
	}
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	le := binary.LittleEndian
	link := make([]byte, syscall.SizeofIfInfomsg)
	le.PutUint32(link[4:], uint32(ifi.Index))
	le.PutUint32(link[8:], syscall.IFF_UP)
	le.PutUint32(link[12:], syscall.IFF_UP)
	ip := addr.Addr().AsSlice()
	address := []byte{syscall.AF_INET, byte(addr.Bits()), 0, 0, 0, 0, 0, 0}
	le.PutUint32(address[4:], uint32(ifi.Index))
	address = attr(attr(address, syscall.IFA_LOCAL, ip), syscall.IFA_ADDRESS, ip)
	route := []byte{syscall.AF_INET, 0, 0, 0, syscall.RT_TABLE_MAIN, syscall.RTPROT_BOOT, 0, syscall.RTN_UNICAST, 0, 0, 0, 0}
	route = attr(route, syscall.RTA_GATEWAY, gateway.AsSlice())
	// As the agent does, for the peers as well.
	const rtaxInitCwnd, rtaxRTOMin = 11, 13
	metrics := attr(nil, rtaxInitCwnd, le.AppendUint32(nil, 64))
	metrics = attr(metrics, rtaxRTOMin, le.AppendUint32(nil, 2000))
	route = attr(route, syscall.RTA_METRICS, metrics)
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_tso_rtt_log", []byte("20"), 0); err != nil {
		return err
	}
	for _, m := range []struct {
		typ, flags uint16
		body       []byte
	}{
		{syscall.RTM_NEWLINK, 0, link},
		{syscall.RTM_NEWADDR, syscall.NLM_F_CREATE, address},
		{syscall.RTM_NEWROUTE, syscall.NLM_F_CREATE, route},
	} {
		if err := netlink(fd, m.typ, m.flags, m.body); err != nil {
			return fmt.Errorf("netlink message %d: %w", m.typ, err)
		}
	}
	return nil
}

func attr(b []byte, typ uint16, v []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(4+len(v)))
	b = binary.LittleEndian.AppendUint16(b, typ)
	return append(b, v...)
}

// netlink sends a request and waits for its acknowledgement.
func netlink(fd int, typ, flags uint16, body []byte) error {
	b := binary.LittleEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint16(b, flags|syscall.NLM_F_REQUEST|syscall.NLM_F_ACK)
	b = append(b, make([]byte, 8)...)
	if err := syscall.Sendto(fd, append(b, body...), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	if n < 20 {
		return io.ErrUnexpectedEOF
	}
	if e := int32(binary.LittleEndian.Uint32(reply[16:])); e != 0 {
		return syscall.Errno(-e)
	}
	return nil
}
