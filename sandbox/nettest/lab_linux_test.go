// Package nettest tests the network of sandboxes from inside: programs in a
// guest against servers on the other side. It has no code but its tests.
//
// They run in network namespaces of their own, from which nothing leaves. The
// test runs itself again as a process in one of them, the host; it makes
// another, the world, with addresses of all kinds:
//
//	sandbox ── host ── veth ── world: 45.45.45.45, 2a45::45 (public),
//	                                  192.168.77.7, fd77::7 (private),
//	                                  169.254.169.254 (metadata)
package nettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/sandbox"
)

const (
	inLab    = "HUTCH_TEST_NETLAB" // the home of a process that is in the host's namespace
	toolName = "nettool"           // by this name the test binary is a tool in the guest
	toolPath = "/opt/" + toolName
)

const (
	public4, public6   = "45.45.45.45", "2a45::45"
	private4, private6 = "192.168.77.7", "fd77::7"
	metadata           = "169.254.169.254"
	host4              = "10.9.9.1" // the host's own, towards the world
)

var home string // of all sandboxes of this process

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == toolName {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if home = os.Getenv(inLab); home != "" {
		defer world.close()
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "hutch-nettest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	home = dir
	return m.Run()
}

// lab runs f in the host's namespace, as the same test of another process.
func lab(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if os.Getenv(inLab) != "" {
		world.once(t)
		f(t)
		return
	}
	kvmtest.RequireLinux(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Fatalf("%v: install iproute2", err)
	}
	args := []string{"-test.run", "^" + t.Name() + "$", "-test.v", "-test.timeout", "5m"}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inLab+"="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	t.Logf("in the host's namespace:\n%s", out)
	if err != nil {
		t.Error(err)
	}
}

// world is the namespace of the servers.
var world worldNS

type worldNS struct {
	fd   int
	done chan struct{} // closed: the thread that keeps it may go
}

func (w *worldNS) close() {
	if w.done != nil {
		close(w.done)
	}
}

// once makes the world, unless it is there.
func (w *worldNS) once(t *testing.T) {
	t.Helper()
	if w.fd > 0 {
		return
	}
	w.done = make(chan struct{})
	ready := make(chan error)
	var tid int
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			tid = unix.Gettid()
			w.fd, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		<-w.done
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	sh := func(script string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	sh(fmt.Sprintf(`
ip link set lo up
ip link add world type veth peer name host netns %d
ip addr add 10.9.9.1/24 dev world
ip addr add fd09::1/64 dev world nodad
ip link set world up
ip route add default via 10.9.9.2
ip -6 route add default via fd09::2`, tid))
	w.enter(t, func() {
		sh(`
ip link set lo up
ip addr add 10.9.9.2/24 dev host
ip addr add fd09::2/64 dev host nodad
ip link set host up
for a in 45.45.45.45/32 45.45.45.46/32 192.168.77.7/32 169.254.169.254/32 2a45::45/128 fd77::7/128; do ip addr add $a dev lo; done`)
	})
}

// enter runs f on a thread that is in the world. Sockets made there stay there.
func (w *worldNS) enter(t testing.TB, f func()) {
	t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread stays in the world and ends
		err := unix.Setns(w.fd, unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// listen listens in the world until the test ends.
func (w *worldNS) listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	w.enter(t, func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (w *worldNS) listenPacket(t testing.TB, address string) net.PacketConn {
	t.Helper()
	var pc net.PacketConn
	var err error
	w.enter(t, func() { pc, err = net.ListenPacket("udp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc
}

// serve calls f for each connection to an address of the world.
func (w *worldNS) serve(t testing.TB, address string, f func(*net.TCPConn)) {
	l := w.listen(t, address)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			}()
		}
	}()
}

// web serves HTTP: the path's last element is the answer.
func (w *worldNS) web(t testing.TB, address string) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you asked %s for %s", r.Host, r.URL.Path)
	})}
	l := w.listen(t, address)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

// echoUDP sends datagrams back.
func (w *worldNS) echoUDP(t testing.TB, address string) {
	pc := w.listenPacket(t, address)
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
}

// resolver serves DNS in the world, UDP and TCP, with records in zone file form.
func (w *worldNS) resolver(t testing.TB, address string, records ...string) {
	var all []mdns.RR
	for _, s := range records {
		rr, err := mdns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	h := mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetReply(r)
		m.Rcode = mdns.RcodeNameError
		for _, rr := range all {
			if strings.EqualFold(rr.Header().Name, r.Question[0].Name) {
				m.Rcode = mdns.RcodeSuccess
				if rr.Header().Rrtype == r.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp && m.Len() > 512 {
			m.Answer, m.Truncated = nil, true
		}
		w.WriteMsg(m)
	})
	for _, s := range []*mdns.Server{{PacketConn: w.listenPacket(t, address), Handler: h}, {Listener: w.listen(t, address), Handler: h}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
}

// create makes a sandbox with the tool in it.
func create(t testing.TB, name string, opts ...sandbox.Option) *sandbox.Sandbox {
	t.Helper()
	begin := time.Now()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sb, err := sandbox.Create(t.Context(), name, append([]sandbox.Option{sandbox.WithHome(home), sandbox.WithEphemeral(), sandbox.WithMemory(256 << 20),
		sandbox.WithMounts(map[string]sandbox.Mount{toolPath: sandbox.MountBind(exe, sandbox.MountReadOnly)})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	})
	if out := in(t, sb, toolPath, ""); !strings.Contains(out, errUsage.Error()) {
		t.Fatalf("the tool does not run (it has to be built with CGO_ENABLED=0): %s", out)
	}
	t.Logf("sandbox %s after %v", name, time.Since(begin).Round(time.Millisecond))
	return sb
}

// in runs a script in the guest; want has to be in what it prints.
func in(t testing.TB, sb *sandbox.Sandbox, script, want string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	begin := time.Now()
	out, err := sb.Shell(ctx, script+" 2>&1")
	if err != nil {
		t.Errorf("%s: %v", script, err)
		return ""
	}
	got := strings.TrimSpace(out.Stdout())
	if !strings.Contains(got, want) {
		t.Errorf("%s: printed %q (%v), want %q; took %v", script, got, out.State(), want, time.Since(begin))
	}
	return got
}

// use runs the tool in the guest.
func use(t testing.TB, sb *sandbox.Sandbox, args, want string) string {
	t.Helper()
	return in(t, sb, toolPath+" "+args, want)
}

var errUsage = errors.New("bad arguments")

// upper answers with what it read, in upper case, once the client has ended.
func upper(c *net.TCPConn) {
	b, err := io.ReadAll(c)
	if err == nil {
		c.Write(bytes.ToUpper(b))
	}
}
