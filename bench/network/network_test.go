//go:build linux

package network

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/netstack"
	"github.com/hutchvm/hutch/vmm"
)

func TestMain(m *testing.M) {
	if os.Getpid() == 1 {
		Guest()
	}
	os.Exit(m.Run())
}

const (
	cmdLine = "reboot=t panic=-1 quiet loglevel=1 console=ttyS0 tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests swiotlb=noforce"
	memory  = 384 // MiB
	// megabytes moved by each stream, and connections made.
	megabytes   = 16
	connections = 50
)

// host is the test's side of the traffic.
type host struct {
	l       net.Listener
	control chan net.Conn
	wg      sync.WaitGroup

	mu     sync.Mutex
	finish []time.Duration // when each stream of a command ended
	begin  time.Time
}

func newHost(b *testing.B) *host {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	h := &host{l: l, control: make(chan net.Conn, 1)}
	h.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.wg.Go(func() { h.serve(c) })
		}
	})
	b.Cleanup(func() {
		l.Close()
		h.wg.Wait()
	})
	return h
}

func (h *host) serve(c net.Conn) {
	// The first line comes alone: the guest waits for nothing, but what follows
	// it is read by the same reader.
	line := make([]byte, 0, 64)
	for one := make([]byte, 1); len(line) < 64; {
		if _, err := io.ReadFull(c, one); err != nil {
			c.Close()
			return
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	var kind string
	var n int64
	_, _ = fmt.Sscan(string(line), &kind, &n)
	switch kind {
	case "control":
		h.control <- c
		return
	case "echo":
		_, _ = c.Write(make([]byte, 512))
	case "send":
		_ = receiveAll(c, n)
	case "receive":
		_ = sendAll(c, n)
	}
	c.Close()
	h.mu.Lock()
	h.finish = append(h.finish, time.Since(h.begin))
	h.mu.Unlock()
}

// run lets the guest do a command and returns how long that took.
func (h *host) run(c net.Conn, format string, args ...any) (time.Duration, error) {
	h.mu.Lock()
	h.finish, h.begin = nil, time.Now()
	h.mu.Unlock()
	cmd := fmt.Sprintf(format, args...)
	fmt.Fprintln(c, cmd)
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Minute))
	line, err := bufio.NewReader(c).ReadString('\n')
	took := time.Since(h.begin)
	if err == nil && line != "done\n" {
		err = errors.New(line)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", cmd, err)
	}
	return took, nil
}

// measure runs all traffic and returns megabytes or connections a second.
func (h *host) measure(c net.Conn) (map[string]float64, error) {
	const each = (megabytes << 20) / 8
	res := make(map[string]float64)
	for _, m := range []struct {
		name, cmd string
		bytes     int64
	}{
		{"", "send 1", 2 << 20}, // warm
		{"", "receive 1", 2 << 20},
		{"out1-MB/s", "send 1", megabytes << 20},
		{"in1-MB/s", "receive 1", megabytes << 20},
		{"out8-MB/s", "send 8", each},
		{"in8-MB/s", "receive 8", each},
		{"both8-MB/s", "both 4", each},
	} {
		d, err := h.run(c, "%s %d", m.cmd, m.bytes)
		if err != nil {
			return nil, err
		}
		if m.name != "" {
			res[m.name] = megabytes * (1 << 20) / 1e6 / d.Seconds()
		}
	}
	h.mu.Lock()
	res["both8-first/last"] = slowest(h.finish, true) / slowest(h.finish, false)
	h.mu.Unlock()
	d, err := h.run(c, "connect 1 %d", connections)
	if err != nil {
		return nil, err
	}
	res["conn/s"] = connections / d.Seconds()
	return res, nil
}

// slowest is when the last stream ended, or the first.
func slowest(d []time.Duration, first bool) float64 {
	v := d[0]
	for _, x := range d {
		if first == (x < v) {
			v = x
		}
	}
	return v.Seconds()
}

// files are the kernel and the initramfs, with this binary as the first process.
func files(b *testing.B) (vmlinux, initrd []byte) {
	b.Helper()
	vmlinux, err := kernel.ELF()
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	var cpio bytes.Buffer
	if err := initramfs.Build(&cpio, self); err != nil {
		b.Fatal(err)
	}
	return vmlinux, cpio.Bytes()
}

func guestArgs(addr, gateway string, h *host) string {
	port := netip.MustParseAddrPort(h.l.Addr().String()).Port()
	return fmt.Sprintf("%s bench.addr=%s bench.gw=%s bench.host=%s:%d", cmdLine, addr, gateway, gateway, port)
}

// wait waits for the guest's control connection.
func (h *host) wait(b *testing.B, out *bytes.Buffer) net.Conn {
	b.Helper()
	select {
	case c := <-h.control:
		return c
	case <-time.After(2 * time.Minute):
		b.Fatalf("the guest does not answer:\n%s", out)
		return nil
	}
}

func hutchSide(b *testing.B, vmlinux, initrd []byte) map[string]float64 {
	b.Helper()
	h := newHost(b)
	s, err := netstack.New(netstack.Config{IPv4: netstack.On, IPv6: netstack.Off})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var out bytes.Buffer
	m, err := vmm.New(vmm.Config{
		CPUs: 1, Memory: memory << 20,
		Kernel: vmm.KernelSource{Reader: bytes.NewReader(vmlinux), Size: int64(len(vmlinux))},
		Initrd: bytes.NewReader(initrd), InitrdSize: int64(len(initrd)),
		CmdLine: guestArgs("10.203.0.2/30", "10.203.0.1", h),
		Devices: []vmm.Device{{Name: "net0", Device: s.Device()}},
		Console: vmm.Console{Serial: &out},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	if err := m.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	c := h.wait(b, &out)
	defer c.Close()
	res, err := h.measure(c)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("hutch: %+v", s.Stats())
	return res
}

// qemuSide boots the same in QEMU's microvm, with a network of its own.
func qemuSide(b *testing.B, dir, addr, gateway string, netdev ...string) map[string]float64 {
	b.Helper()
	h := newHost(b)
	args := append([]string{"-machine", "microvm,accel=kvm,pit=off,pic=off,rtc=off,isa-serial=on,acpi=off",
		"-cpu", "host", "-smp", "1", "-m", fmt.Sprint(memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "stdio", "-device", "virtio-net-device,netdev=n,mac=02:00:00:00:00:02",
		"-kernel", filepath.Join(dir, "vmlinux"), "-initrd", filepath.Join(dir, "initrd"),
		"-append", guestArgs(addr, gateway, h)}, netdev...)
	cmd := exec.Command("qemu-system-x86_64", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	c := h.wait(b, &out)
	defer c.Close()
	res, err := h.measure(c)
	if err != nil {
		// A peer's fault; there is nothing to compare with.
		b.Logf("%s: %v", netdev[len(netdev)-1], err)
	}
	return res
}

// passtSide is QEMU with passt, which needs an interface with a route to copy.
func passtSide(b *testing.B, dir string) map[string]float64 {
	b.Helper()
	sock := filepath.Join(dir, "passt.sock")
	for _, line := range []string{
		"link add veth-p type veth peer name veth-q", "addr add 192.0.2.2/24 dev veth-p", "link set veth-p up",
		"link set veth-q up", "route add default via 192.0.2.1 dev veth-p",
	} {
		if o, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			b.Logf("ip %s: %v: %s", line, err, o)
		}
	}
	cmd := exec.Command("passt", "-f", "--runas", "0", "-s", sock, "-a", "192.0.2.2", "-g", "192.0.2.1", "-4", "-m", "1500", "-t", "none", "-u", "none")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.Logf("no passt: %v", err)
		return nil
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for range 100 {
		if _, err := os.Stat(sock); err == nil {
			return qemuSide(b, dir, "192.0.2.2/24", "192.0.2.1", "-netdev", "stream,id=n,server=off,addr.type=unix,addr.path="+sock)
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Logf("passt does not start: %s", out.String())
	return nil
}

// BenchmarkVersusPeers moves data in one stream and in eight, and makes connections
// one after the other.
func BenchmarkVersusPeers(b *testing.B) {
	kvmtest.RequireLinux(b)
	vmlinux, initrd := files(b)
	dir := b.TempDir()
	for name, data := range map[string][]byte{"vmlinux": vmlinux, "initrd": initrd} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		ours := hutchSide(b, vmlinux, initrd)
		report(b, "hutch", ours, nil)
		report(b, "slirp", qemuSide(b, dir, "10.0.2.15/24", "10.0.2.2", "-netdev", "user,id=n"), ours)
		report(b, "passt", passtSide(b, dir), ours)
	}
}

func report(b *testing.B, who string, res, ours map[string]float64) {
	for k, v := range res {
		b.ReportMetric(v, who+"-"+k)
		if ours != nil {
			b.Logf("%s %s %.1f, hutch %.1f: %.2f times", who, k, v, ours[k], ours[k]/v)
		}
	}
}
