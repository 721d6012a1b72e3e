package fs

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"github.com/hutchvm/hutch/virtio/virtq"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each request with its own bytes, as far as there is room, and can
// be held up.
type echo struct {
	served, resets, running, most atomic.Int32

	mu     sync.Mutex
	gate   chan struct{} // nil is open
	gated  uint32        // the operation that the gate is for
	forgot [][]byte
}

func (h *echo) Serve(in, out [][]byte) int {
	h.served.Add(1)
	now := h.running.Add(1)
	defer h.running.Add(-1)
	for most := h.most.Load(); now > most && !h.most.CompareAndSwap(most, now); most = h.most.Load() {
	}
	req := make([]byte, virtq.Buffers(in).Len())
	virtq.Buffers(in).CopyTo(req, 0)
	op := binary.LittleEndian.Uint32(req[opField:])
	h.mu.Lock()
	gate := h.gate
	if op != h.gated {
		gate = nil
	}
	if op == opForget {
		h.forgot = append(h.forgot, req)
	}
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return virtq.Buffers(out).CopyFrom(req, 0)
}

func (h *echo) Reset() { h.resets.Add(1) }

func (h *echo) close(op uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate, h.gated = make(chan struct{}), op
}

func (h *echo) open() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate)
	h.gate = nil
}

const (
	opForget = 2
	opLookup = 1
	opRead   = 15
)

func reqBytes(op uint32, more string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(40+len(more)))
	b = binary.LittleEndian.AppendUint32(b, op)
	return append(append(b, make([]byte, 32)...), more...)
}

func newDevice(t testing.TB, cfg Config) (*Device, *echo) {
	t.Helper()
	h := &echo{}
	if cfg.Handler == nil {
		cfg.Handler = h
	}
	if cfg.Tag == "" {
		cfg.Tag = "files"
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d, h
}

func waitUntil(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("condition does not come true")
		}
	}
}

func TestRequests(t *testing.T) {
	for name, opt := range map[string]virtiotest.Options{
		"like Linux": {}, "no indirect": {NoIndirect: true}, "no event index": {NoEventIdx: true}, "small ring": {QueueSize: 16},
	} {
		t.Run(name, func(t *testing.T) {
			dev, h := newDevice(t, Config{Queues: 2})
			d := virtiotest.New(t, dev, opt)
			for q := 1; q <= 2; q++ {
				for _, op := range []uint32{opLookup, opFsync} {
					req := reqBytes(op, "name\x00")
					u := d.Queues[q].Do([][]byte{req[:16], req[16:40], req[40:]}, 16, 1, 100)
					if int(u.Len) != len(req) || !bytes.Equal(u.Data, req) {
						t.Errorf("queue %d, operation %d: %d bytes: %q", q, op, u.Len, u.Data)
					}
				}
			}
			// FORGET has no reply, on the queue of its own.
			if u := d.Queues[hiprio].Do([][]byte{reqBytes(opForget, "12345678")}); u.Len != 0 {
				t.Errorf("forget: %d bytes", u.Len)
			}
			if len(h.forgot) != 1 {
				t.Errorf("%d forgets", len(h.forgot))
			}
			if s := dev.Stats(); s.Requests != 5 || s.Malformed != 0 {
				t.Errorf("stats %+v", s)
			}
			d.CheckHealthy()
		})
	}
}

// One that takes long does not hold up the others, nor those FORGET.
func TestConcurrent(t *testing.T) {
	dev, h := newDevice(t, Config{Workers: 4})
	d := virtiotest.New(t, dev)
	h.close(opFsync)
	for range 4 {
		d.Queues[1].Add([][]byte{reqBytes(opFsync, "")}, []int{64})
	}
	d.Queues[1].Kick()
	waitUntil(t, func() bool { return h.running.Load() == 4 })
	for range 10 {
		head := d.Queues[1].Add([][]byte{reqBytes(opLookup, "a\x00")}, []int{64})
		d.Queues[1].Kick()
		if u := d.Queues[1].MustUsed(); u.Head != head {
			t.Fatal("not the lookup came back")
		}
		d.Queues[hiprio].Do([][]byte{reqBytes(opForget, "")})
	}
	h.open()
	for range 4 {
		d.Queues[1].MustUsed()
	}
	if h.most.Load() < 4 {
		t.Errorf("at most %d at once", h.most.Load())
	}
	d.CheckHealthy()
}

// Requests that turn out slow go to the workers, whatever they are.
func TestPace(t *testing.T) {
	var p pace
	p.epoch = time.Now().Add(-time.Hour)
	if _, inline := p.begin(inlineBytes + 1); inline {
		t.Error("a large request is inline")
	}
	for range paceTries {
		began, inline := p.begin(100)
		if !inline {
			t.Fatal("gave up too early")
		}
		p.end(began - 2*paceSlow)
	}
	if _, inline := p.begin(100); inline {
		t.Error("slow requests stay inline")
	}
}

// A pause and a reset wait for requests that are being served.
func TestQuiesceAndReset(t *testing.T) {
	for _, how := range []string{"pause", "reset"} {
		t.Run(how, func(t *testing.T) {
			dev, h := newDevice(t, Config{Workers: 1})
			d := virtiotest.New(t, dev)
			h.close(opFsync)
			for range 3 {
				d.Queues[1].Add([][]byte{reqBytes(opFsync, "")}, []int{64})
			}
			d.Queues[1].Kick()
			waitUntil(t, func() bool { return h.running.Load() == 1 })
			done := make(chan struct{})
			go func() {
				defer close(done)
				if how == "pause" {
					d.T.Pause()
				} else {
					d.Reset()
				}
			}()
			select {
			case <-done:
				t.Fatal("did not wait")
			case <-time.After(20 * time.Millisecond):
			}
			h.open()
			<-done
			if how == "pause" {
				if n := h.served.Load(); n != 3 {
					t.Errorf("%d of the requests taken were served", n)
				}
				d.T.Resume()
				for range 3 {
					d.Queues[1].MustUsed()
				}
			} else if h.resets.Load() != 1 {
				t.Errorf("%d resets of the handler", h.resets.Load())
			}
		})
	}
}

func TestConfigSpace(t *testing.T) {
	dev, _ := newDevice(t, Config{Tag: "hutch-files", Queues: 3})
	b := make([]byte, configSize)
	for i := range b {
		dev.ReadConfig(uint64(i), b[i:i+1])
	}
	if got := string(bytes.TrimRight(b[:MaxTag], "\x00")); got != "hutch-files" {
		t.Errorf("tag %q", got)
	}
	if n := binary.LittleEndian.Uint32(b[MaxTag:]); n != 3 {
		t.Errorf("%d queues", n)
	}
	p := []byte{1, 2, 3, 4}
	dev.WriteConfig(0, p)
	for _, off := range []uint64{configSize, 1 << 40, ^uint64(0)} {
		if dev.ReadConfig(off, p); !bytes.Equal(p, make([]byte, 4)) {
			t.Errorf("at %d: %v", off, p)
		}
	}
	if len(dev.QueueSizes()) != 4 || dev.ID() != virtio.IDFS || dev.Features() != 0 {
		t.Errorf("queues %v, ID %d, features %#x", dev.QueueSizes(), dev.ID(), dev.Features())
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"Handler":   {Tag: "x"},
		"Tag":       {Handler: &echo{}},
		"Tag ":      {Handler: &echo{}, Tag: strings.Repeat("x", MaxTag+1)},
		"Tag  ":     {Handler: &echo{}, Tag: "a\x00b"},
		"Queues":    {Handler: &echo{}, Tag: "x", Queues: MaxQueues + 1},
		"QueueSize": {Handler: &echo{}, Tag: "x", QueueSize: 100},
		"Workers":   {Handler: &echo{}, Tag: "x", Workers: -1},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestState(t *testing.T) {
	dev, _ := newDevice(t, Config{})
	s := dev.Save()
	same, _ := newDevice(t, Config{})
	if err := same.Restore(s); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*State){
		"version": func(s *State) { s.Version++ }, "tag": func(s *State) { s.Tag = "other" }, "queues": func(s *State) { s.Queues++ },
	} {
		bad := s
		change(&bad)
		if same.Restore(bad) == nil {
			t.Errorf("another %s was restored", name)
		}
	}
	virtiotest.New(t, dev)
	if dev.Restore(s) == nil {
		t.Error("an active device was restored")
	}
}
