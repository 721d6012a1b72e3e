package vmm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/vmm"
)

// ports counts the bytes that the guest writes to the serial port.
type ports struct{ n chan struct{} }

func (p ports) Write(b []byte) (int, error) {
	select {
	case p.n <- struct{}{}:
	default:
	}
	return len(b), nil
}

// alive reports whether the guest writes to the serial port within d.
func (p ports) alive(d time.Duration) bool {
	for len(p.n) > 0 {
		<-p.n
	}
	select {
	case <-p.n:
		return true
	case <-time.After(d):
		return false
	}
}

func TestPauseAndResume(t *testing.T) {
	kvmtest.RequireLinux(t)
	cfg := snippet(t, exitLoop)
	serial := ports{make(chan struct{}, 1)}
	cfg.Console.Serial = serial
	m := newMachine(t, cfg)
	if err := m.Pause(t.Context()); !errors.Is(err, vmm.ErrState) {
		t.Errorf("pause before start: %v", err)
	}
	start(t, t.Context(), m)
	if err := m.Start(t.Context()); !errors.Is(err, vmm.ErrState) {
		t.Errorf("second start: %v", err)
	}
	for range 20 {
		if !serial.alive(10 * time.Second) {
			t.Fatal("a running guest does not run")
		}
		if err := m.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(t.Context()); !errors.Is(err, vmm.ErrState) {
			t.Errorf("second pause: %v", err)
		}
		if serial.alive(20 * time.Millisecond) {
			t.Fatal("a paused guest runs")
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Stop() // a paused machine can be stopped
	if got := wait(t, m); got.Reason != vmm.Killed {
		t.Errorf("exit is %v", got)
	}
	if err := m.Resume(); !errors.Is(err, vmm.ErrState) {
		t.Errorf("resume of a stopped machine: %v", err)
	}
}

func TestPauseManyCPUs(t *testing.T) {
	kvmtest.RequireLinux(t)
	cfg := snippet(t, busyLoop)
	cfg.CPUs = 4 // three of them wait for a start-up interrupt that never comes
	m := newMachine(t, cfg)
	start(t, t.Context(), m)
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
}

func TestStartAfterCancel(t *testing.T) {
	kvmtest.RequireLinux(t)
	m := newMachine(t, snippet(t, busyLoop))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
	}
}

// resources counts what a machine could leak.
func resources(t *testing.T) map[string]int {
	t.Helper()
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{
		"descriptors": count("/proc/self/fd"),
		"threads":     count("/proc/self/task"),
		"goroutines":  runtime.NumGoroutine(),
		"mappings":    strings.Count(string(maps), "\n"),
	}
}

func TestTwoHundredMachinesLeakNothing(t *testing.T) {
	kvmtest.RequireLinux(t)
	cfg := snippet(t, powerOff)
	run := func(n int) {
		for range n {
			m, err := vmm.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			start(t, t.Context(), m)
			wait(t, m)
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(10) // threads and the heap reach their steady state
	before := resources(t)
	run(200)
	after := resources(t)
	for what, n := range after {
		// The Go runtime keeps a few threads and arenas of its own.
		if n > before[what]+4 {
			t.Errorf("%s: %d before, %d after 200 machines", what, before[what], n)
		}
	}
}

func TestBadConfigNamesTheField(t *testing.T) {
	good := func() vmm.Config {
		return vmm.Config{CPUs: 1, Memory: defaultSize, Kernel: vmm.KernelSource{Reader: strings.NewReader("x"), Size: 1}}
	}
	for _, tt := range []struct {
		field string
		spoil func(*vmm.Config)
	}{
		{"CPUs", func(c *vmm.Config) { c.CPUs = 0 }},
		{"CPUs", func(c *vmm.Config) { c.CPUs = boot.MaxCPUs + 1 }},
		{"Memory", func(c *vmm.Config) { c.Memory = 1 << 20 }},
		{"Memory", func(c *vmm.Config) { c.Memory = defaultSize + 1 }},
		{"Memory", func(c *vmm.Config) { c.Memory = 1 << 60 }},
		{"Kernel", func(c *vmm.Config) { c.Kernel = vmm.KernelSource{} }},
		{"Kernel", func(c *vmm.Config) { c.Kernel.Flat = &boot.Flat{} }},
		{"Initrd", func(c *vmm.Config) { c.InitrdSize = 1 }},
		{"Devices", func(c *vmm.Config) { c.Devices = make([]vmm.Device, vmm.MaxDevices) }},
		{"Devices", func(c *vmm.Config) { c.Devices = make([]vmm.Device, 1) }},
	} {
		cfg := good()
		tt.spoil(&cfg)
		_, err := vmm.New(cfg)
		var ce *vmm.ConfigError
		if !errors.As(err, &ce) || ce.Field != tt.field || !errors.Is(err, vmm.ErrConfig) {
			t.Errorf("%s: error is %v", tt.field, err)
		}
	}
}

func TestNoKVMDevice(t *testing.T) {
	cfg := vmm.Config{CPUs: 1, Memory: defaultSize, Kernel: vmm.KernelSource{Reader: strings.NewReader("x"), Size: 1}}
	cfg.KVMPath = filepath.Join(t.TempDir(), "kvm")
	if _, err := vmm.New(cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
