//go:build unix

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func testInfo(name string, ephemeral bool) *info {
	return &info{
		Version: infoVersion, Name: name, Status: StatusCreated, PID: os.Getpid(), Created: time.Now().UTC(),
		Config: &config{Ephemeral: ephemeral},
	}
}

// recordMain is what a child process of these tests does: sandboxes' lives as
// far as records are concerned, as fast as it can, for ever.
func recordMain(home string, names []string) {
	for n := 0; ; n++ {
		name := names[rand.IntN(len(names))]
		if rec, i, err := openNamed(home, name); err == nil {
			i.Status = StatusStarting
			check(rec.write(i))
			i.Status = StatusRunning
			check(rec.write(i))
			if rand.IntN(2) == 0 {
				check(rec.remove())
				continue
			}
			i.Status = StatusStopped
			check(rec.write(i))
			check(rec.close())
			continue
		}
		i := testInfo(name, rand.IntN(2) == 0)
		rec, err := claim(home, i)
		if err != nil {
			continue
		}
		check(os.WriteFile(filepath.Join(rec.dir, upperName), []byte("disk of "+name), 0o600))
		i.Status, i.Started = StatusRunning, time.Now()
		check(rec.write(i))
		fmt.Println("alive")
		if i.Config.Ephemeral {
			check(rec.remove())
			continue
		}
		i.Status = StatusStopped
		check(rec.write(i))
		check(rec.close())
	}
}

func check(err error) {
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
}

const recordChild = "HUTCHTEST_RECORD_HOME"

func init() {
	if home := os.Getenv(recordChild); home != "" {
		recordMain(home, []string{"a", "b", "c"})
	}
}

// TestKilledAtAnyMoment kills processes that make, start, stop and remove
// sandboxes, two at a time. Whatever they leave is whole: each record can be
// read, has its disk, and can be taken, started and removed by the next process.
func TestKilledAtAnyMoment(t *testing.T) {
	home := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 60 {
		var wg sync.WaitGroup
		for range 2 {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), recordChild+"="+home)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				lines := bufio.NewReader(out)
				lines.ReadString('\n') // it is under way
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
				cmd.Process.Kill()
				rest, _ := io.ReadAll(lines)
				cmd.Wait()
				if strings.Contains(string(rest), "ERROR") {
					t.Errorf("round %d: %s", round, rest)
				}
			})
		}
		wg.Wait()
		checkLeftovers(t, home)
	}
	if err := sweep(home); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(recordsOf(home))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if st, err := e.Info(); strings.HasPrefix(e.Name(), ".") && err == nil && time.Since(st.ModTime()) > abandoned {
			t.Errorf("%s is left", e.Name())
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := Remove(t.Context(), name, WithHome(home)); err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		rec, err := claim(home, testInfo(name, true))
		if err != nil {
			t.Fatal(err)
		}
		rec.remove()
	}
}

func checkLeftovers(t *testing.T, home string) {
	t.Helper()
	all, err := List(t.Context(), WithHome(home))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		if s := h.Status(); s != StatusStopped && s != StatusCrashed {
			t.Errorf("%s is %s", h.Name(), s)
		}
		dir := filepath.Join(recordsOf(home), h.Name())
		if b, err := os.ReadFile(filepath.Join(dir, upperName)); err != nil || string(b) != "disk of "+h.Name() {
			t.Errorf("%s has lost its disk: %q, %v", h.Name(), b, err)
		}
	}
}

// TestOneClaimWins: of many claims, in this process, exactly one gets the name,
// also in place of what a killed process left.
func TestOneClaimWins(t *testing.T) {
	home := t.TempDir()
	rec, err := claim(home, testInfo("n", false)) // never finished
	if err != nil {
		t.Fatal(err)
	}
	rec.close()
	for range 50 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []*record
		for range 8 {
			wg.Go(func() {
				rec, err := claim(home, testInfo("n", true))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, rec)
				} else if !errors.Is(err, ErrAlreadyExists) {
					t.Error(err)
				}
			})
		}
		go sweep(home)
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d claims won", len(won))
		}
		won[0].close() // as if killed
	}
}

func TestHandles(t *testing.T) {
	home := t.TempDir()
	make := func(name string, status Status, ephemeral bool, started time.Time, labels map[string]string) *record {
		i := testInfo(name, ephemeral)
		i.Status, i.Started, i.Labels = status, started, labels
		if status == StatusRunning {
			i.Ports = []PortBinding{{Address: localhost, Host: 4711, Guest: 80}}
		}
		rec, err := claim(home, i)
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	long := time.Now().Add(-time.Hour)
	running := make("running", StatusRunning, false, long, map[string]string{"a": "1", "b": "2"})
	defer running.close()
	starting := make("starting", StatusCreated, false, time.Time{}, nil)
	defer starting.close()
	make("stopped", StatusStopped, false, long, map[string]string{"a": "1"}).close()
	make("killed", StatusRunning, false, long, nil).close()
	make("killed-ephemeral", StatusRunning, true, long, nil).close()
	make("killed-early", StatusCreated, false, time.Time{}, nil).close()
	if err := os.MkdirAll(filepath.Join(recordsOf(home), "broken"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{lockName, infoName} {
		if err := os.WriteFile(filepath.Join(recordsOf(home), "broken", f), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	all, err := List(t.Context(), WithHome(home))
	if err == nil || !strings.Contains(err.Error(), "list broken") {
		t.Errorf("the broken record is not reported: %v", err)
	}
	got := map[string]Status{}
	for _, h := range all {
		got[h.Name()] = h.Status()
		if runs := h.Name() == "running"; runs != (len(h.Ports()) == 1) || runs && h.Ports()[0].Host != 4711 {
			t.Errorf("ports of %s: %v", h.Name(), h.Ports())
		}
	}
	want := map[string]Status{"running": StatusRunning, "starting": StatusCreated, "stopped": StatusStopped, "killed": StatusCrashed}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		labels map[string]string
		want   int
	}{{map[string]string{"a": "1"}, 2}, {map[string]string{"a": "1", "b": "2"}, 1}, {map[string]string{"a": "2"}, 0}, {map[string]string{"c": ""}, 0}} {
		if all, _ := ListWith(t.Context(), tt.labels, WithHome(home)); len(all) != tt.want {
			t.Errorf("%v: %d sandboxes, want %d", tt.labels, len(all), tt.want)
		}
	}
	if h, err := Get(t.Context(), "killed", WithHome(home)); err != nil || !strings.Contains(h.Reason(), fmt.Sprint(os.Getpid())) {
		t.Errorf("%v, %v", h, err)
	}
	for name, want := range map[string]error{
		"running": ErrStillRunning, "starting": ErrStillRunning, "stopped": nil, "killed": nil, "broken": nil, "none": ErrNotFound, "../x": ErrInvalidConfig,
	} {
		if err := Remove(t.Context(), name, WithHome(home)); !errors.Is(err, want) {
			t.Errorf("remove %s: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"stopped", "killed-ephemeral", "killed-early", "broken", "none"} {
		if _, err := Get(t.Context(), name, WithHome(home)); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %s: %v", name, err)
		}
	}
	if err := sweep(home); err != nil {
		t.Error(err)
	}
	left, _ := os.ReadDir(recordsOf(home))
	if len(left) != 2 {
		t.Errorf("%v is left", left)
	}
	if st, err := os.Stat(filepath.Join(running.dir, infoName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("others may read the environment: %v, %v", st.Mode(), err)
	}
}

// TestConfigIsSavedWhole: a configuration is the same after it was read again,
// whatever bytes the environment holds.
func TestConfigIsSavedWhole(t *testing.T) {
	c, err := resolve("n", []Option{
		WithHome(t.TempDir()), WithEnv(map[string]string{"BINARY": "\xff\x00"[:1], "LOOKS": "base64:eA==", "TEXT": "ä\n"}),
		WithRlimits(map[Resource]Rlimit{RlimitCPU: Limit(RlimitInfinity)}), WithLabels(map[string]string{"a": "b"}),
		WithMaxDuration(time.Hour), WithUser("u:g"), WithWorkdir("/w"), WithOCIUpperSize(1 << 30), WithCPUs(3),
		WithNetwork(NetworkNonLocal().WithDenied([]string{"evil.example"}, []string{".ads.example"})), WithPorts(map[uint16]uint16{8080: 80}),
		WithPortBindings(PortBinding{Address: netip.IPv6Loopback(), Guest: 53, UDP: true}), WithDNS(DNSConfig{Nameservers: []string{"10.0.0.53"}, Search: []string{"example.com"}}),
		WithIPv4Pool(netip.MustParsePrefix("10.9.8.0/30")), WithMaxConnections(7), WithNetworkRate(NetworkRate{BytesPerSecond: 1}, NetworkRate{Burst: time.Second}),
	})
	if err != nil {
		t.Fatal(err)
	}
	i := testInfo("n", false)
	i.Config = c
	rec, err := claim(c.Home, i)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.close()
	got, err := readInfo(rec.dir)
	if err != nil {
		t.Fatal(err)
	}
	got.Config.Name, got.Config.Home, got.Config.ReplaceTimeout = c.Name, c.Home, c.ReplaceTimeout
	if diff := cmp.Diff(i, got, cmp.AllowUnexported(info{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("saved (-want +got):\n%s", diff)
	}
}

// TestReconfigure: what Start may change, and what not.
func TestReconfigure(t *testing.T) {
	c, err := resolve("n", []Option{WithHome(t.TempDir()), WithEnv(map[string]string{"A": "1"}), WithOCIUpperSize(1 << 30)})
	if err != nil {
		t.Fatal(err)
	}
	i := testInfo("n", false)
	i.Config = c
	got, err := i.reconfigure(c.Home, []Option{WithCPUs(2), WithEnv(map[string]string{"B": "2"}), WithOCIUpperSize(2 << 30)})
	if err != nil {
		t.Fatal(err)
	}
	if got.CPUs != 2 || got.Env["A"] != "1" || got.Env["B"] != "2" || got.UpperSize != 2<<30 || len(c.Env) != 1 {
		t.Errorf("%+v, and the saved one %+v", got, c)
	}
	for name, opt := range map[string]Option{
		"WithOCIUpperSize": WithOCIUpperSize(512 << 20), "WithEphemeral": WithEphemeral(), "WithReplace": WithReplace(), "WithCPUs": WithCPUs(0),
	} {
		if _, err := i.reconfigure(c.Home, []Option{opt}); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
