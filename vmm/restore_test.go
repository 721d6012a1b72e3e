package vmm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/virtio/rng"
	"github.com/hutchvm/hutch/vmm"
)

// countLoop writes ReadyMark, and then the low byte of a counter in memory to the
// serial port for ever.
func countLoop() []byte {
	const counter = 0x800
	code := outb(vmm.ControlPort, vmm.ReadyMark,
		0xba, 0xf8, 0x03, 0, 0, // mov edx, 0x3f8
		0xff, 0x04, 0x25, 0, 0, 0, 0, // inc dword [counter]
		0x8a, 0x04, 0x25, 0, 0, 0, 0, // mov al, [counter]
		0xee,       // out dx, al
		0xeb, 0xef, // jmp to the inc
	)
	binary.LittleEndian.PutUint32(code[16:], codeAddr+counter)
	binary.LittleEndian.PutUint32(code[23:], codeAddr+counter)
	return code
}

// recorder keeps what the guest writes to the serial port.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.buf.Bytes())
}

func (r *recorder) waitFor(t *testing.T, n int) []byte {
	t.Helper()
	for range 1000 {
		if b := r.bytes(); len(b) >= n {
			return b
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the guest does not count")
	return nil
}

// counting is a machine of two CPUs that runs countLoop.
func counting(t *testing.T, r *recorder, s *vmm.Snapshot) *vmm.Machine {
	t.Helper()
	entropy, err := rng.New(rng.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := snippet(t, countLoop())
	if s != nil {
		cfg.Kernel, cfg.Snapshot = vmm.KernelSource{}, s
	}
	cfg.CPUs, cfg.Console.Serial = 2, r
	cfg.HoldWhenReady = s == nil
	cfg.Devices = []vmm.Device{{Name: "rng", Device: entropy}}
	return newMachine(t, cfg)
}

func TestSnapshotAndRestore(t *testing.T) {
	kvmtest.RequireLinux(t)
	first := new(recorder)
	m := counting(t, first, nil)
	f, err := os.Create(filepath.Join(t.TempDir(), "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.Snapshot(f); !errors.Is(err, vmm.ErrState) {
		t.Errorf("snapshot of a machine that was not started: %v", err)
	}
	start(t, t.Context(), m)
	select {
	case <-m.Ready():
	case <-time.After(time.Minute):
		t.Fatal("no ready mark")
	}
	time.Sleep(20 * time.Millisecond)
	if b := first.bytes(); len(b) != 0 {
		t.Errorf("the guest was not held: it wrote %d bytes", len(b))
	}
	m.Release()
	first.waitFor(t, 10)
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Snapshot(f); err != nil {
		t.Fatal(err)
	}
	said := first.bytes()
	last := said[len(said)-1]

	s, err := vmm.OpenSnapshot(f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		r := new(recorder)
		again := counting(t, r, s)
		start(t, t.Context(), again)
		if got := r.waitFor(t, 300); got[0] != last+1 || got[299] != last+44 {
			t.Errorf("machine %d goes on with %d … %d after %d", i, got[0], got[299], last)
		}
		again.Stop()
		wait(t, again)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := first.waitFor(t, len(said)+1); got[len(said)] != last+1 {
		t.Errorf("the machine goes on with %d after %d", got[len(said)], last)
	}

	// Machines of another kind.
	for name, tt := range map[string]struct {
		spoil func(*vmm.Config)
		want  error
	}{
		"CPUs":    {func(c *vmm.Config) { c.CPUs = 1 }, vmm.ErrConfig},
		"memory":  {func(c *vmm.Config) { c.Memory *= 2 }, vmm.ErrConfig},
		"cmdline": {func(c *vmm.Config) { c.CmdLine = "quiet" }, vmm.ErrConfig},
		"devices": {func(c *vmm.Config) {}, vmm.ErrSnapshot},
	} {
		cfg := vmm.Config{CPUs: 2, Memory: defaultSize, Snapshot: s}
		tt.spoil(&cfg)
		if m, err := vmm.New(cfg); !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v", name, err)
			if err == nil {
				m.Close()
			}
		}
	}
}
