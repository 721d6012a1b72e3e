package kvmhost

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/internal/kvmprobe"
)

func TestChoose(t *testing.T) {
	usable := kvmprobe.Result{Usable: true, Flag: "svm"}
	software := kvmprobe.Result{Reason: kvmprobe.SoftwareKVM}
	for name, c := range map[string]struct {
		env   string
		probe kvmprobe.Result
		mode  Mode
		why   string
		err   error
	}{
		"usable":          {"", usable, Direct, "svm", nil},
		"software":        {"", software, Emulated, "software KVM", nil},
		"repairable":      {"", kvmprobe.Result{Reason: kvmprobe.NoDevice, Flag: "svm", Advice: "load it"}, Emulated, "to run directly: load it", nil},
		"forced emulated": {"emulated", usable, Emulated, "HUTCH_KVMHOST", nil},
		"forced direct":   {"direct", software, Direct, "HUTCH_KVMHOST", nil},
		"inside":          {"inside", software, Direct, "inside", nil},
		"nonsense":        {"perhaps", usable, "", "", ErrConfig},
	} {
		t.Run(name, func(t *testing.T) {
			mode, why, err := Choose(c.env, func() kvmprobe.Result { return c.probe })
			if mode != c.mode || !strings.Contains(why, c.why) || !errors.Is(err, c.err) {
				t.Errorf("got %q (%s), %v; want %q (…%s…), %v", mode, why, err, c.mode, c.why, c.err)
			}
		})
	}
}

func TestOutermost(t *testing.T) {
	got := outermost([]string{"/b/c", "/a", "/b", "/ab", "/a/x", "/b"})
	if diff := cmp.Diff([]string{"/a", "/ab", "/b"}, got); diff != "" {
		t.Errorf("directories (-want +got):\n%s", diff)
	}
	if got := outermost([]string{"/", "/x"}); len(got) != 1 {
		t.Errorf("below the root remains %q", got)
	}
}

func TestOverlays(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want string
	}{
		"usual":         {map[string]string{"HOME": "/home/u"}, "/home/u /tmp /var/tmp"},
		"no home":       {nil, "/tmp /var/tmp"},
		"root as home":  {map[string]string{"HOME": "/"}, "/tmp /var/tmp"},
		"home in tmp":   {map[string]string{"HOME": "/tmp/h", "TMPDIR": "/scratch/"}, "/scratch /tmp /var/tmp"},
		"relative home": {map[string]string{"HOME": "h"}, "/tmp /var/tmp"},
	} {
		got := strings.Join(overlays(func(k string) string { return c.env[k] }), " ")
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTestOutputs(t *testing.T) {
	for name, c := range map[string]struct {
		args, env string
		want      string
	}{
		"a plain command":     {"ls -test.v -o=/x", "", ""},
		"go test":             {"/b/x.test -test.paniconexit0 -test.timeout=10m0s -test.testlogfile=/w/b001/log.txt", "", "/w/b001"},
		"coverage":            {"x -test.coverprofile=/w/c.out -test.gocoverdir=/w/cov", "", "/w /w/cov"},
		"profile":             {"x -test.cpuprofile=p/cpu.out -test.outputdir=/mod", "", "/mod/p /mod"},
		"profile without dir": {"x -test.memprofile=mem.out", "", "/cwd"},
		"empty":               {"x -test.memprofile= -test.outputdir=", "", ""},
		"environment":         {"x", "A=1 GOCOVERDIR=/cov", "/cov"},
	} {
		got := strings.Join(testOutputs(strings.Fields(c.args), strings.Fields(c.env), "/cwd"), " ")
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestRing(t *testing.T) {
	var r ring
	for i := range 10_000 {
		if n, err := r.Write([]byte("0123456789")); n != 10 || err != nil {
			t.Fatalf("write %d: %d, %v", i, n, err)
		}
	}
	r.Write([]byte("\x1b[2J\r\nend\n"))
	if n := cap(r.data); n > 8*consoleLimit {
		t.Errorf("ring takes %d bytes", n)
	}
	got := r.tail()
	if len(got) > consoleLimit || !strings.HasSuffix(got, "6789[2J\nend") {
		t.Errorf("tail has %d bytes and ends in %q", len(got), got[len(got)-20:])
	}
	r.Write(make([]byte, 5*consoleLimit))
	if got := r.tail(); got != "" {
		t.Errorf("tail of zeros is %q", got)
	}
}
