package nettest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/sandbox"
)

func rules(t *testing.T, p sandbox.NetworkPolicy, list ...string) sandbox.NetworkPolicy {
	t.Helper()
	var rs []sandbox.NetworkRule
	for _, s := range list {
		r, err := sandbox.ParseNetworkRule(s)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return p.WithRules(rs...)
}

// flows collects the flow log.
type flows struct {
	mu   sync.Mutex
	list []sandbox.FlowEvent
}

func (f *flows) add(e sandbox.FlowEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, e)
}

func (f *flows) count(ok func(sandbox.FlowEvent) bool) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, e := range f.list {
		if ok(e) {
			n++
		}
	}
	return n
}

func echo(c *net.TCPConn) { io.Copy(c, c) }

// TestPublic is the default policy, with a hole for one private port.
func TestPublic(t *testing.T) { lab(t, public) }

func public(t *testing.T) {
	for _, a := range []string{public4, private4, metadata} {
		world.web(t, a+":80")
	}
	world.web(t, "["+public6+"]:80")
	world.web(t, "["+private6+"]:80")
	world.serve(t, public4+":7001", upper)
	world.serve(t, "["+public6+"]:7001", upper)
	world.serve(t, public4+":7002", func(c *net.TCPConn) { // a reset in mid-stream
		c.Write(make([]byte, 100<<10))
		time.Sleep(300 * time.Millisecond)
		c.SetLinger(0)
	})
	world.serve(t, public4+":7003", echo)
	world.serve(t, private4+":7004", echo)
	world.serve(t, private4+":7005", echo)
	silent := make(chan struct{})
	defer close(silent)
	world.serve(t, public4+":7006", func(*net.TCPConn) { <-silent })
	world.serve(t, public4+":853", echo)
	world.echoUDP(t, public4+":443")
	world.echoUDP(t, "["+public6+"]:443")
	world.echoUDP(t, private4+":443")
	world.echoUDP(t, public4+":853")
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("many.test. 60 A 45.45.46.%d", i))
	}
	world.resolver(t, "10.9.9.2:53", append(many, "web.test. 60 A "+public4, "web.test. 60 AAAA "+public6, "inside.test. 60 A 192.168.77.8", "both.test. 60 A "+public4, "both.test. 60 A 127.0.0.1")...)
	dead := world.listenPacket(t, "10.9.9.2:5300") // never read
	hostWeb, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hostWeb.Close()
	_, hostPort, _ := net.SplitHostPort(hostWeb.Addr().String())

	var log flows
	sb := create(t, "public", sandbox.WithNetwork(rules(t, sandbox.NetworkPublic(), "allow@"+private4+":tcp:7004")), sandbox.WithFlowLog(log.add),
		sandbox.WithMaxConnections(1100), sandbox.WithDNS(sandbox.DNSConfig{Nameservers: []string{dead.LocalAddr().String(), "10.9.9.2"}, Timeout: 4 * time.Second, Search: []string{"test"}}),
		sandbox.WithPortBindings(sandbox.PortBinding{Guest: 9000}, sandbox.PortBinding{Guest: 9000, UDP: true}, sandbox.PortBinding{Address: netip.IPv6Loopback(), Guest: 9000}))

	t.Run("setup", func(t *testing.T) {
		in(t, sb, "cat /etc/resolv.conf", "nameserver 10.203.0.1\nsearch test")
		in(t, sb, "cat /proc/net/if_inet6", "eth0")
		in(t, sb, "ls /sys/class/net", "eth0")
	})
	t.Run("reach", func(t *testing.T) {
		// The first name meets the dead resolver, and is answered all the same.
		in(t, sb, "wget -O /tmp/o http://web.test/name && cat /tmp/o", "you asked web.test for /name")
		in(t, sb, "wget -O /tmp/o http://web/search && cat /tmp/o", "you asked web for /search")
		in(t, sb, "wget -O /tmp/o http://"+public4+"/four && cat /tmp/o", "for /four")
		in(t, sb, "wget -O /tmp/o http://["+public6+"]/six && cat /tmp/o", "for /six")
		use(t, sb, "upper "+public4+":7001 half-close", "HALF-CLOSE")
		use(t, sb, "upper ["+public6+"]:7001 half-close", "HALF-CLOSE")
		use(t, sb, "udp "+public4+":443 1200", "echo of 1200 true")
		use(t, sb, "udp ["+public6+"]:443 1200", "echo of 1200 true")
		use(t, sb, "udp "+public4+":443 8000", "echo of 8000 true") // fragments
	})
	t.Run("refuse", func(t *testing.T) {
		got := use(t, sb, strings.Join([]string{"dial", private4 + ":80", "[" + private6 + "]:80", metadata + ":80", host4 + ":" + hostPort, "10.203.0.1:" + hostPort,
			private4 + ":7004", private4 + ":7005", public4 + ":853", public4 + ":9"}, " "), "")
		for _, want := range []string{private4 + ":80 refused fast", "[" + private6 + "]:80 refused fast", metadata + ":80 refused fast", host4 + ":" + hostPort + " refused fast",
			"10.203.0.1:" + hostPort + " refused fast", private4 + ":7004 open", private4 + ":7005 refused fast", public4 + ":853 refused fast", public4 + ":9 refused fast"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
		use(t, sb, "udp "+private4+":443 10", "error")
		use(t, sb, "udp "+public4+":853 10", "error")
		use(t, sb, "dial host.hutch.internal:"+hostPort, "refused fast")
		denied := func(a string) func(sandbox.FlowEvent) bool {
			return func(e sandbox.FlowEvent) bool { return e.Kind == sandbox.FlowDenied && e.Flow.Addr.String() == a }
		}
		for _, a := range []string{private4, private6, metadata, host4} {
			if log.count(denied(a)) == 0 {
				t.Errorf("the denial of %s is not in the log", a)
			}
		}
		if log.count(func(e sandbox.FlowEvent) bool {
			return e.Kind == sandbox.FlowOpened && e.Flow.Port == 7004 && e.Rule == 0
		}) != 1 {
			t.Error("the flow to port 7004 is not in the log")
		}
		if s := sb.NetworkStats(); s.Denied < 6 || s.TxFrames == 0 || s.RxBytes == 0 {
			t.Errorf("counters: %+v", s)
		}
	})
	t.Run("dns", func(t *testing.T) {
		for _, server := range []string{"10.203.0.1:53", "8.8.8.8:53", "[2001:4860::8888]:53"} {
			use(t, sb, "dns "+server+" web.test A", "NOERROR "+public4)
			use(t, sb, "dns "+server+" web.test AAAA tcp", "NOERROR "+public6)
		}
		use(t, sb, "dns 10.203.0.1:53 inside.test A", "NXDOMAIN")
		use(t, sb, "dns 10.203.0.1:53 both.test A", "NOERROR "+public4+" 1 records")
		use(t, sb, "dns 10.203.0.1:53 nowhere.test A", "NXDOMAIN")
		use(t, sb, "dns 10.203.0.1:53 many.test A", "truncated")
		use(t, sb, "dns 10.203.0.1:53 many.test A tcp", "60 records")
		use(t, sb, "dns 10.203.0.1:53 host.hutch.internal A", "NOERROR 10.203.0.1")
	})
	t.Run("trouble", func(t *testing.T) {
		use(t, sb, "read "+public4+":7002", "reset")
		use(t, sb, "read "+public4+":7006", "timeout") // a server that never answers
		use(t, sb, "scan "+public4+" 300", "300 refused, 0 open")
		use(t, sb, "scan "+private4+" 200", "200 refused, 0 open")
		use(t, sb, "many "+public4+":7003 1000", "1000 connections, 0 failed")
		use(t, sb, "upper "+public4+":7001 still-there", "STILL-THERE")
	})
	t.Run("ports", func(t *testing.T) { ports(t, sb, &log) })
	t.Run("speed", func(t *testing.T) {
		world.serve(t, public4+":7010", func(c *net.TCPConn) { io.Copy(io.Discard, c) })
		world.serve(t, public4+":7011", func(c *net.TCPConn) {
			buf := make([]byte, 256<<10)
			for {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		})
		t.Log("guest to world:", use(t, sb, "send "+public4+":7010 6", "Mbit/s"))
		t.Log("world to guest:", use(t, sb, "receive "+public4+":7011 6", "Mbit/s"))
	})
}

// ports tests what comes in.
func ports(t *testing.T, sb *sandbox.Sandbox, log *flows) {
	p := sb.Ports()
	if len(p) != 3 || p[0].Host == 0 || !p[1].UDP || p[2].Address != netip.IPv6Loopback() {
		t.Fatalf("ports: %v", p)
	}
	if h, err := sandbox.Get(t.Context(), sb.Name(), sandbox.WithHome(home)); err != nil || !slices.Equal(h.Ports(), p) {
		t.Errorf("the record tells other ports: %+v, %v", h, err)
	}
	at := func(b sandbox.PortBinding) string { return netip.AddrPortFrom(b.Address, b.Host).String() }
	srv := sb.Command(t.Context(), toolPath, "listen", "9000")
	out, err := srv.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Wait()
	defer srv.Process.Signal(syscall.SIGKILL)
	io.ReadFull(out, make([]byte, len("listening\n")))

	round := func(network, address string, i int) error {
		c, err := net.DialTimeout(network, address, 30*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		msg := "message " + strconv.Itoa(i)
		io.WriteString(c, msg)
		b := make([]byte, len(msg))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != msg {
			return fmt.Errorf("echo %q: %w", b, err)
		}
		return nil
	}
	for _, b := range p {
		network := "tcp"
		if b.UDP {
			network = "udp"
		}
		if err := round(network, at(b), 0); err != nil {
			t.Errorf("%v: %v", b, err)
		}
	}
	begin := time.Now()
	for i := range 40 {
		if err := round("tcp", at(p[0]), i); err != nil {
			t.Fatalf("connection %d in sequence: %v", i, err)
		}
	}
	t.Logf("%.0f connections/s in sequence", 40/time.Since(begin).Seconds())
	var work sync.WaitGroup
	for w := range 20 {
		work.Go(func() {
			for i := range 6 {
				if err := round("tcp", at(p[0]), w*100+i); err != nil {
					t.Errorf("connection %d of %d: %v", i, w, err)
					return
				}
			}
		})
	}
	work.Wait()
	if n := log.count(func(e sandbox.FlowEvent) bool { return e.Kind == sandbox.FlowOpened && e.Flow.Port == 9000 }); n < 160 {
		t.Errorf("%d ingress flows in the log", n)
	}
	_, err = sandbox.Create(t.Context(), "taken", sandbox.WithHome(home), sandbox.WithEphemeral(), sandbox.WithPorts(map[uint16]uint16{p[0].Host: 80}))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "WithPorts") {
		t.Errorf("a port that is in use: %v", err)
	}

	// The same server by way of the agent.
	c, err := sb.DialContext(t.Context(), "tcp", "localhost:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "through the agent")
	c.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "through the agent" {
		t.Errorf("read %q, %v", b, err)
	}
	if c.RemoteAddr().String() != "127.0.0.1:9000" {
		t.Errorf("remote address %v", c.RemoteAddr())
	}
	if _, err := sb.DialContext(t.Context(), "tcp", "127.0.0.1:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := sb.DialContext(t.Context(), "unix", "/run/nothing"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
}

// TestDomains is a policy of domains only.
func TestDomains(t *testing.T) { lab(t, domains) }

func domains(t *testing.T) {
	cert := certificate(t)
	for _, a := range []string{public4 + ":443", "45.45.45.46:443"} {
		l := tls.NewListener(world.listen(t, a), &tls.Config{Certificates: []tls.Certificate{cert}})
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "hello from %s", a)
				}()
			}
		}()
	}
	world.web(t, public4+":80")
	world.resolver(t, "10.9.9.2:53", "api.test. 60 A "+public4, "evil.test. 60 A 45.45.45.46", "other.test. 60 A 45.45.45.46")
	dnsLog := make(chan sandbox.DNSQuery, 100)
	sb := create(t, "domains", sandbox.WithNetwork(rules(t, sandbox.NetworkPolicy{}, "deny@evil.test", "allow@api.test:tcp:443", "allow@45.45.45.46:tcp:443")),
		sandbox.WithDNS(sandbox.DNSConfig{Nameservers: []string{"10.9.9.2"}}), sandbox.WithDNSLog(func(q sandbox.DNSQuery) { dnsLog <- q }))
	use(t, sb, "tls "+public4+":443 api.test", "refused") // DNS was not asked
	use(t, sb, "tls api.test:443 api.test", "hello from "+public4)
	use(t, sb, "tls "+public4+":443 api.test", "hello from "+public4) // now it was
	use(t, sb, "tls api.test:443 fronted.test", "error")              // the names disagree
	use(t, sb, "dial api.test:80", "refused fast")
	use(t, sb, "tls evil.test:443 evil.test", "no such host")
	use(t, sb, "tls 45.45.45.46:443 evil.test", "error") // denied by its name alone
	use(t, sb, "tls 45.45.45.46:443 fine.test", "hello from 45.45.45.46")
	select {
	case q := <-dnsLog:
		if q.Name != "api.test" || len(q.Addrs) != 1 && q.Type == "A" {
			t.Errorf("first query: %+v", q)
		}
	default:
		t.Error("nothing in the log of DNS")
	}
}

// TestHostAndNone: everything allowed, the host included, at a limited rate; and
// no network at all.
func TestHostAndNone(t *testing.T) { lab(t, hostAndNone) }

func hostAndNone(t *testing.T) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the host's own") })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	world.serve(t, private4+":7001", upper)
	world.serve(t, public4+":7010", func(c *net.TCPConn) { io.Copy(io.Discard, c) })
	const rate = 1 << 20
	sb := create(t, "open", sandbox.WithNetwork(rules(t, sandbox.NetworkAllowAll(), "deny:ingress@loopback")), sandbox.WithIPv4Pool(netip.MustParsePrefix("172.30.5.0/24")),
		sandbox.WithNetworkRate(sandbox.NetworkRate{BytesPerSecond: rate}, sandbox.NetworkRate{}), sandbox.WithPorts(map[uint16]uint16{0: 80}))
	in(t, sb, "wget -O /tmp/o http://host.hutch.internal:"+port+"/ && cat /tmp/o", "the host's own")
	in(t, sb, "wget -O /tmp/o http://172.30.5.1:"+port+"/ && cat /tmp/o", "the host's own")
	use(t, sb, "upper "+private4+":7001 private", "PRIVATE")
	begin := time.Now()
	use(t, sb, "send "+public4+":7010 3", "bytes")
	if d := time.Since(begin); d < 2*time.Second {
		t.Errorf("3 MiB at 1 MiB/s took %v", d)
	}
	c, err := net.Dial("tcp", netip.AddrPortFrom(sb.Ports()[0].Address, sb.Ports()[0].Host).String())
	if err == nil {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an ingress that is denied: %v", err)
	}
	sb.Close()

	none := create(t, "none", sandbox.WithNetwork(sandbox.NetworkNone()))
	if got := in(t, none, "ls /sys/class/net", ""); strings.Contains(got, "eth") {
		t.Errorf("interfaces without a network: %s", got)
	}
	if s := none.NetworkStats(); s != (sandbox.NetworkStats{}) || none.Ports() != nil {
		t.Errorf("without a network: %+v, %v", s, none.Ports())
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
