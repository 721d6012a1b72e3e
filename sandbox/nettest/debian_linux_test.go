package nettest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/sandbox"
)

// toolRoot is a root with Debian's tools, which internal/ci/toolroot.sh has made.
func toolRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/toolroot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".version")); err != nil {
		if os.Getenv("HUTCH_REQUIRE_KVM") == "1" {
			t.Fatalf("%v: run internal/ci/toolroot.sh", err)
		}
		t.Skipf("%v: run internal/ci/toolroot.sh", err)
	}
	return dir
}

// TestDebianTools uses the tools that people have: Debian's, in a root of their own.
func TestDebianTools(t *testing.T) {
	root := toolRoot(t)
	lab(t, func(t *testing.T) { debianTools(t, root) })
}

func debianTools(t *testing.T, root string) {
	const size = 20 << 20
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(content)
	files := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
			return
		}
		http.ServeContent(w, r, "content", time.Time{}, bytes.NewReader(content))
	})}
	go files.Serve(world.listen(t, public4+":8080"))
	t.Cleanup(func() { files.Close() })
	for _, a := range []string{public4, "[" + public6 + "]", private4} {
		world.web(t, a+":80")
	}
	for _, a := range []string{public4, "[" + public6 + "]"} {
		world.serve(t, a+":7001", upper)
		world.echoUDP(t, a+":7007")
	}
	records := []string{"web.test. 60 A " + public4, "web.test. 60 AAAA " + public6, "inside.test. 60 A 192.168.77.8"}
	for i := range 120 {
		records = append(records, fmt.Sprintf("many.test. 60 A 45.45.46.%d", i))
		if i < 60 {
			records = append(records, fmt.Sprintf("some.test. 60 A 45.45.47.%d", i))
		}
	}
	world.resolver(t, "10.9.9.2:53", records...)

	sb := create(t, "debian", sandbox.WithImage(root), sandbox.WithNetwork(sandbox.NetworkPublic()), sandbox.WithPortBindings(sandbox.PortBinding{Guest: 8000}),
		sandbox.WithDNS(sandbox.DNSConfig{Nameservers: []string{"10.9.9.2"}}), sandbox.WithDNSLog(func(q sandbox.DNSQuery) {
			if q.Took > time.Second {
				t.Logf("a slow answer: %s %s %s after %v", q.Name, q.Type, q.Outcome, q.Took)
			}
		}))
	t.Run("curl", func(t *testing.T) {
		in(t, sb, "curl -sS -4 http://web.test/four http://"+public4+"/number --next -sS -6 http://web.test/six http://["+public6+"]/number",
			"you asked web.test for /fouryou asked "+public4+" for /numberyou asked web.test for /sixyou asked ["+public6+"] for /number")
		t.Log("bytes per second:", in(t, sb, "curl -sS -w '%{speed_download}\n' -o /tmp/c http://"+public4+":8080/; sha256sum /tmp/c", fmt.Sprintf("%x", sha256.Sum256(content))))
		in(t, sb, "curl -sS -r 1000000-1999999 http://"+public4+":8080/ | sha256sum", fmt.Sprintf("%x", sha256.Sum256(content[1e6:2e6])))
		in(t, sb, "head -c 5000000 /tmp/c | curl -sS -T - http://"+public4+":8080/", fmt.Sprintf("5000000 %x", sha256.Sum256(content[:5e6])))
		// 7 is not connected, 6 is no such host. The time is in seconds.
		got := in(t, sb, "curl -s -m 20 -w '%{time_total} ' http://"+private4+"/; echo status $?", "status 7")
		var seconds float64
		if _, err := fmt.Sscan(got, &seconds); err != nil || seconds > 3 {
			t.Errorf("a refusal: %q, %v", got, err)
		}
		in(t, sb, "curl -s -m 20 http://inside.test/; echo status $?", "status 6")
	})
	t.Run("dig", func(t *testing.T) {
		dig := func(args, want string) string {
			t.Helper()
			got := in(t, sb, "dig "+args, want)
			if strings.Contains(got, "timed out") { // and asked again
				t.Log(got)
			}
			return got
		}
		dig("+short web.test A web.test AAAA", public4+"\n"+public6)
		dig("+short +tcp @8.8.8.8 web.test A; dig +short @2001:4860::8888 web.test AAAA", public4+"\n"+public6)
		got := dig("+noall +comments inside.test -x 192.168.77.8 nowhere.test", "")
		if strings.Count(got, "status: NXDOMAIN") != 3 {
			t.Errorf("names that are denied or not there:\n%s", got)
		}
		dig("+noedns +ignore some.test", "qr tc rd ra; QUERY: 1, ANSWER: 0")
		dig("+ignore some.test", "qr rd ra; QUERY: 1, ANSWER: 60") // EDNS has the room
		got = dig("many.test", "qr rd ra; QUERY: 1, ANSWER: 120")
		if !strings.Contains(got, "Truncated, retrying in TCP mode") {
			t.Errorf("an answer too long for UDP:\n%s", got)
		}
	})
	t.Run("nc", func(t *testing.T) {
		for _, a := range []string{public4, public6} {
			in(t, sb, "echo half close | nc -N "+a+" 7001", "HALF CLOSE")
			in(t, sb, "echo datagram | nc -u -W 1 -w 20 "+a+" 7007", "datagram")
		}
		in(t, sb, "nc -zv -w 5 "+private4+" 80", "refused")
		in(t, sb, "nc -zv -w 5 "+public4+" 80", "succeeded")
	})
	t.Run("python", func(t *testing.T) { python(t, sb) })
	t.Run("iperf3", func(t *testing.T) { iperf3(t, sb) })
}

func python(t *testing.T, sb *sandbox.Sandbox) {
	in(t, sb, `cat >/tmp/t.py <<END
import http.client, socket
c = http.client.HTTPConnection("web.test")
c.request("GET", "/python")
print(c.getresponse().read().decode())
for a in "`+public4+`", "`+public6+`":
    s = socket.create_connection((a, 7001))
    s.sendall(b"python" * 100)
    s.shutdown(socket.SHUT_WR)
    print(s.makefile("rb").read() == b"PYTHON" * 100)
try:
    socket.create_connection(("`+private4+`", 80))
except ConnectionRefusedError as e:
    print(e)
END
python3 /tmp/t.py`, "you asked web.test for /python\nTrue\nTrue\n[Errno 111] Connection refused")

	in(t, sb, "mkdir /tmp/www && echo served by the guest >/tmp/www/file", "")
	srv := sb.Command(t.Context(), "python3", "-u", "-m", "http.server", "-d", "/tmp/www", "8000")
	out, err := srv.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Wait()
	defer srv.Process.Signal(syscall.SIGKILL)
	io.ReadFull(out, make([]byte, len("Serving HTTP")))

	p := sb.Ports()[0]
	agent := &http.Transport{DialContext: sb.DialContext, DisableKeepAlives: true}
	for address, c := range map[string]*http.Client{
		netip.AddrPortFrom(p.Address, p.Host).String(): {Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second},
		"127.0.0.1:8000": {Transport: agent, Timeout: 30 * time.Second},
	} {
		r, err := c.Get("http://" + address + "/file")
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(b) != "served by the guest\n" {
			t.Errorf("%s: %q, %v", address, b, err)
		}
	}
}

// iperf3 measures with a server of the world.
func iperf3(t *testing.T, sb *sandbox.Sandbox) {
	path, err := exec.LookPath("iperf3")
	if err != nil {
		t.Fatalf("%v: install iperf3", err)
	}
	for _, a := range []string{public4, public6} {
		// It answers UDP from the address that it is bound to.
		srv := exec.Command(path, "-s", "-B", a)
		world.enter(t, func() { err = srv.Start() })
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Wait()
		defer srv.Process.Kill()
		for up := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			c, err := net.Dial("tcp", net.JoinHostPort(a, "5201"))
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(up) {
				t.Fatal(err)
			}
		}
	}
	for _, args := range []string{public4, public4 + " -R", public4 + " -P 4", public6 + " -R -P 4", public4 + " -u -b 2M -l 1200"} {
		var result struct {
			Error string
			End   struct {
				Streams []struct {
					Sender, Receiver, UDP struct{ Bytes int64 }
				}
				Received struct {
					Bytes int64
					Rate  float64 `json:"bits_per_second"`
				} `json:"sum_received"`
				Sum struct {
					Packets int64
					Lost    int64   `json:"lost_packets"`
					Rate    float64 `json:"bits_per_second"`
				}
			}
		}
		out := in(t, sb, "iperf3 -J -t 1 -c "+args, "{")
		if err := json.Unmarshal([]byte(out), &result); err != nil || result.Error != "" {
			t.Errorf("iperf3 %s: %v, %s", args, err, out)
			continue
		}
		end := result.End
		if strings.Contains(args, "-u") {
			t.Logf("iperf3 %s: %.1f Mbit/s, %d of %d datagrams lost", args, end.Sum.Rate/1e6, end.Sum.Lost, end.Sum.Packets)
			if end.Sum.Packets == 0 || end.Sum.Lost == end.Sum.Packets {
				t.Error(out)
			}
			continue
		}
		var each []int64
		for _, s := range end.Streams {
			each = append(each, s.Receiver.Bytes)
			if s.Receiver.Bytes < end.Received.Bytes/int64(10*len(end.Streams)) {
				t.Errorf("iperf3 %s: a stream starved", args)
			}
		}
		want := 1
		if strings.Contains(args, "-P 4") {
			want = 4
		}
		if len(each) != want || end.Received.Bytes == 0 {
			t.Errorf("iperf3 %s: %s", args, out)
		}
		t.Logf("iperf3 %s: %.1f Mbit/s, bytes of the streams %v", args, end.Received.Rate/1e6, each)
	}
}
