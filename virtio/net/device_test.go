package net

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testMAC = [6]byte{2, 0, 0, 0, 0, 1}

// recorder is a backend that keeps what it sees.
type recorder struct {
	mu     sync.Mutex
	frames []sent
	full   bool // take nothing
	done   int
	ready  chan int
}

type sent struct {
	Pair   int
	Header Header
	Data   string
}

func newRecorder() *recorder { return &recorder{ready: make(chan int, 1024)} }

func (r *recorder) Transmit(pair int, f *Frame) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return false
	}
	b := make([]byte, f.Len)
	f.Data.CopyTo(b, 0)
	r.frames = append(r.frames, sent{pair, f.Header, string(b)})
	return true
}

func (r *recorder) TransmitDone(int) {
	r.mu.Lock()
	r.done++
	r.mu.Unlock()
}

func (r *recorder) ReceiveReady(pair int) {
	select {
	case r.ready <- pair:
	default:
	}
}

func (r *recorder) take() []sent {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.frames
	r.frames = nil
	return f
}

func (r *recorder) waitReady(t testing.TB, pair int) {
	t.Helper()
	timeout := time.After(virtiotest.Timeout)
	for {
		select {
		case got := <-r.ready:
			if got == pair {
				return
			}
		case <-timeout:
			t.Fatal("no ReceiveReady")
		}
	}
}

type guest struct {
	t   testing.TB
	dev *Device
	b   *recorder
	d   *virtiotest.Driver
}

func newGuest(t testing.TB, cfg Config, opts ...virtiotest.Options) *guest {
	t.Helper()
	g := &guest{t: t, b: newRecorder()}
	cfg.Backend = g.b
	if cfg.MAC == [6]byte{} {
		cfg.MAC = testMAC
	}
	if cfg.QueueSize == 0 {
		cfg.QueueSize = 64
	}
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.dev, g.d = dev, virtiotest.New(t, dev, opts...)
	if g.d.Queues[0] != nil {
		g.b.waitReady(t, 0)
	}
	return g
}

func frameOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// hdr is a virtio_net_hdr.
func hdr(flags, gso byte, hdrLen, size, start, off uint16) []byte {
	b := []byte{flags, gso}
	for _, v := range []uint16{hdrLen, size, start, off, 0} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

// send transmits a frame in pieces and waits until the device is done with it.
func (g *guest) send(pieces ...[]byte) {
	g.t.Helper()
	g.d.Queues[1].Do(pieces)
}

func TestTransmit(t *testing.T) {
	g := newGuest(t, Config{})
	f := frameOf(60)
	g.send(append(hdr(0, 0, 0, 0, 0, 0), f...))
	// Cut anywhere, the header included.
	g.send(hdr(0, 0, 0, 0, 0, 0)[:5], hdr(0, 0, 0, 0, 0, 0)[5:], f[:1], f[1:30], f[30:])
	big := frameOf(60000)
	g.send(hdr(1, 1, 54, 1448, 34, 16), big[:20000], big[20000:])
	tso := Header{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, GSO: GSOTCPv4, SegmentSize: 1448, HeaderLen: 54}
	want := []sent{{0, Header{}, string(f)}, {0, Header{}, string(f)}, {0, tso, string(big)}}
	if diff := cmp.Diff(want, g.b.take()); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
	st := g.dev.Stats()
	if st.TxFrames != 3 || st.TxBytes != 60120 || st.TxDrops != 0 {
		t.Errorf("stats %+v", st)
	}
	g.d.CheckHealthy()
}

// TestTransmitRefused sends what must not reach the backend.
func TestTransmitRefused(t *testing.T) {
	tso := func(size uint16) []byte { return hdr(1, 1, 54, size, 34, 16) }
	plain := hdr(0, 0, 0, 0, 0, 0)
	for _, tt := range []struct {
		name   string
		refuse uint64
		pieces [][]byte
	}{
		{"no header", 0, [][]byte{plain[:11]}},
		{"header only", 0, [][]byte{plain}},
		{"13 bytes", 0, [][]byte{plain, frameOf(13)}},
		{"over the MTU", 0, [][]byte{plain, frameOf(1519)}},
		{"over the maximum", 0, [][]byte{tso(1000), frameOf(MaxFrame + 1)}},
		{"a million bytes", 0, [][]byte{tso(1000), frameOf(1 << 20)}},
		{"checksum not negotiated", featureCsum | featureHostTSO4 | featureHostTSO6 | featureHostECN, [][]byte{hdr(1, 0, 0, 0, 34, 16), frameOf(60)}},
		{"TSO4 not negotiated", featureHostTSO4, [][]byte{tso(1000), frameOf(60)}},
		{"TSO6 not negotiated", featureHostTSO6, [][]byte{hdr(1, 4, 54, 1000, 34, 16), frameOf(60)}},
		{"ECN not negotiated", featureHostECN, [][]byte{hdr(1, 0x81, 54, 1000, 34, 16), frameOf(60)}},
		{"UFO", 0, [][]byte{hdr(1, 3, 54, 1000, 34, 6), frameOf(60)}},
		{"USO", 0, [][]byte{hdr(1, 5, 54, 1000, 34, 6), frameOf(60)}},
		{"ECN without GSO", 0, [][]byte{hdr(0, 0x80, 0, 0, 0, 0), frameOf(60)}},
		{"GSO without checksum", 0, [][]byte{hdr(0, 1, 54, 1000, 34, 16), frameOf(60)}},
		{"segments of 0", 0, [][]byte{tso(0), frameOf(60)}},
		{"segments of 1", 0, [][]byte{tso(1), frameOf(60)}},
		{"segments over the MTU", 0, [][]byte{tso(1501), frameOf(60)}},
		{"checksum behind the end", 0, [][]byte{hdr(1, 0, 0, 0, 34, 25), frameOf(60)}},
		{"checksum start behind the end", 0, [][]byte{hdr(1, 0, 0, 0, 0xffff, 0xffff), frameOf(60)}},
		{"checksum in the Ethernet header", 0, [][]byte{hdr(1, 0, 0, 0, 4, 2), frameOf(60)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuest(t, Config{}, virtiotest.Options{Refuse: tt.refuse})
			g.send(tt.pieces...)
			g.send(append(plain, frameOf(1518)...)) // the card still works
			if f := g.b.take(); len(f) != 1 || len(f[0].Data) != 1518 {
				t.Errorf("backend saw %d frames", len(f))
			}
			if st := g.dev.Stats(); st.TxDrops != 1 || st.TxFrames != 1 {
				t.Errorf("stats %+v", st)
			}
			g.d.CheckHealthy()
		})
	}
}

// TestTransmitBackpressure has a backend that takes nothing for a while.
func TestTransmitBackpressure(t *testing.T) {
	g := newGuest(t, Config{})
	g.b.full = true
	for i := range 20 {
		g.d.Queues[1].Add([][]byte{hdr(0, 0, 0, 0, 0, 0), frameOf(60 + i)}, nil)
	}
	g.d.Queues[1].Kick()
	for {
		g.b.mu.Lock()
		done := g.b.done
		g.b.mu.Unlock()
		if done > 1 {
			break
		}
		g.dev.WakeTransmit(0)
		time.Sleep(time.Millisecond)
	}
	if _, ok := g.d.Queues[1].TryUsed(); ok {
		t.Error("a frame came back that the backend did not take")
	}
	g.b.mu.Lock()
	g.b.full = false
	g.b.mu.Unlock()
	g.dev.WakeTransmit(0)
	for range 20 {
		g.d.Queues[1].MustUsed()
	}
	for i, f := range g.b.take() {
		if f.Data != string(frameOf(60+i)) {
			t.Errorf("frame %d is not what was sent", i)
		}
	}
}

// received checks one received frame, put together from its buffers.
func (g *guest) received(want []byte, h []byte) {
	g.t.Helper()
	u := g.d.Queues[0].MustUsed()
	if len(u.Data) < headerLen {
		g.t.Fatalf("first buffer has %d bytes", len(u.Data))
	}
	n := int(binary.LittleEndian.Uint16(u.Data[10:]))
	got := u.Data[headerLen:]
	if !bytes.Equal(u.Data[:10], h[:10]) {
		g.t.Errorf("header % x, want % x", u.Data[:10], h[:10])
	}
	for range n - 1 {
		// They were published with the first one.
		u, ok := g.d.Queues[0].TryUsed()
		if !ok {
			g.t.Fatal("the pieces of a frame did not come together")
		}
		got = append(got, u.Data...)
	}
	if !bytes.Equal(got, want) {
		g.t.Errorf("received %d bytes in %d buffers that differ from the %d sent", len(got), n, len(want))
	}
}

func (g *guest) offer(n, size int) {
	g.t.Helper()
	for range n {
		g.d.Queues[0].Add(nil, []int{size})
	}
	g.d.Queues[0].Kick()
}

func TestReceive(t *testing.T) {
	for _, opt := range []virtiotest.Options{{}, {NoIndirect: true}, {NoEventIdx: true}} {
		g := newGuest(t, Config{}, opt)
		g.offer(50, 1526)
		big := frameOf(MaxFrame)
		tso := Header{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16, GSO: GSOTCPv6, SegmentSize: 1440, HeaderLen: 74}
		for _, tt := range []struct {
			h      Header
			pieces [][]byte
			want   []byte
		}{
			{Header{}, [][]byte{frameOf(60)}, hdr(0, 0, 0, 0, 0, 0)},
			{Header{ChecksumValid: true}, [][]byte{frameOf(1514)[:14], nil, frameOf(1514)[14:]}, hdr(2, 0, 0, 0, 0, 0)},
			{tso, [][]byte{big[:54], big[54:30000], big[30000:]}, hdr(1, 4, 74, 1440, 34, 16)},
		} {
			if err := g.dev.Receive(0, &tt.h, tt.pieces); err != nil {
				t.Fatal(err)
			}
			g.dev.Flush(0)
			g.received(bytes.Join(tt.pieces, nil), tt.want)
		}
		g.d.CheckHealthy()
	}
}

// TestReceiveHalfWay has buffers for a part of a frame only (CVE-2021-3748).
func TestReceiveHalfWay(t *testing.T) {
	g := newGuest(t, Config{})
	g.offer(3, 1526)
	f := frameOf(5000)
	if err := g.dev.Receive(0, &Header{}, [][]byte{f}); !errors.Is(err, ErrNoBuffers) {
		t.Fatalf("error %v", err)
	}
	if _, ok := g.d.Queues[0].TryUsed(); ok {
		t.Fatal("part of a frame was received")
	}
	// A smaller one fits, in the buffers that were put back.
	if err := g.dev.Receive(0, &Header{}, [][]byte{f[:100]}); err != nil {
		t.Fatal(err)
	}
	g.dev.Flush(0)
	g.received(f[:100], hdr(0, 0, 0, 0, 0, 0))
	g.offer(2, 1526)
	g.b.waitReady(t, 0)
	if err := g.dev.Receive(0, &Header{}, [][]byte{f}); err != nil {
		t.Fatal(err)
	}
	g.dev.Flush(0)
	g.received(f, hdr(0, 0, 0, 0, 0, 0))
	g.d.CheckHealthy()
}

// TestReceiveFlood floods a guest that gives no buffers (CVE-2020-16843).
func TestReceiveFlood(t *testing.T) {
	g := newGuest(t, Config{})
	f := [][]byte{frameOf(1514)}
	if n := testing.AllocsPerRun(10000, func() {
		if err := g.dev.Receive(0, &Header{}, f); err != ErrNoBuffers {
			t.Fatal(err)
		}
		g.dev.Flush(0)
	}); n != 0 {
		t.Errorf("%v allocations for a frame without buffers", n)
	}
	if st := g.dev.Stats(); st.RxNoBuffers < 10000 || st.RxFrames != 0 {
		t.Errorf("stats %+v", st)
	}
	g.offer(1, 2000)
	g.b.waitReady(t, 0)
	g.d.CheckHealthy()
}

// TestReceiveBadBuffers gives buffers that cannot hold a frame.
func TestReceiveBadBuffers(t *testing.T) {
	t.Run("no room for the header", func(t *testing.T) {
		g := newGuest(t, Config{})
		g.offer(5, 11)
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != ErrTooLarge {
			t.Fatal(err)
		}
		g.d.CheckHealthy()
	})
	t.Run("too many pieces", func(t *testing.T) {
		g := newGuest(t, Config{QueueSize: 256})
		g.offer(250, 16)
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(3000)}); err != ErrTooLarge {
			t.Fatal(err)
		}
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(1000)}); err != nil {
			t.Fatal(err)
		}
		g.dev.Flush(0)
		g.received(frameOf(1000), hdr(0, 0, 0, 0, 0, 0))
	})
	t.Run("not mergeable", func(t *testing.T) {
		g := newGuest(t, Config{}, virtiotest.Options{Refuse: featureMrgRxbuf})
		g.offer(5, 1000)
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(989)}); err != ErrTooLarge {
			t.Fatal(err)
		}
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(988)}); err != nil {
			t.Fatal(err)
		}
		g.dev.Flush(0)
		g.received(frameOf(988), hdr(0, 0, 0, 0, 0, 0))
	})
	t.Run("device-readable", func(t *testing.T) {
		g := newGuest(t, Config{})
		g.d.Queues[0].Add([][]byte{{1, 2, 3}}, nil)
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != ErrTooLarge {
			t.Fatal(err)
		}
	})
	t.Run("outside memory", func(t *testing.T) {
		g := newGuest(t, Config{})
		g.offer(1, 100)
		g.d.Queues[0].PokeDesc(1, virtiotest.Desc{Addr: 1 << 60, Len: 4096, Flags: virtiotest.DescWrite})
		g.d.Queues[0].PokeAvail(1)
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(500)}); err != ErrDown {
			t.Fatal(err)
		}
		g.d.WaitNeedsReset()
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != ErrDown {
			t.Fatal(err)
		}
		g.d.Restart()
		g.offer(1, 1000)
		g.b.waitReady(t, 0)
		if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReceiveOffloads(t *testing.T) {
	g := newGuest(t, Config{}, virtiotest.Options{Refuse: featureGuestTSO4 | featureGuestTSO6})
	g.offer(4, 2000)
	if got, want := g.dev.Offloads(), (Offloads{Checksum: true}); got != want {
		t.Errorf("offloads %+v, want %+v", got, want)
	}
	h := Header{NeedsChecksum: true, ChecksumStart: 34, ChecksumOffset: 16}
	if err := g.dev.Receive(0, &h, [][]byte{frameOf(60)}); err != nil {
		t.Error(err)
	}
	h.GSO, h.SegmentSize = GSOTCPv4, 1000
	if err := g.dev.Receive(0, &h, [][]byte{frameOf(60)}); err != ErrOffload {
		t.Error(err)
	}
	if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(13)}); err != ErrTooLarge {
		t.Error(err)
	}
	if err := g.dev.Receive(1, &Header{}, [][]byte{frameOf(60)}); err != ErrDown {
		t.Error(err)
	}
}

func TestFeatureDependencies(t *testing.T) {
	for _, refuse := range []uint64{featureCsum, featureGuestCsum} {
		dev, err := New(Config{Backend: newRecorder(), MAC: testMAC})
		if err != nil {
			t.Fatal(err)
		}
		d := virtiotest.Attach(t, dev)
		if !d.Negotiate(d.Offered() &^ refuse) {
			t.Fatal("features refused")
		}
		d.SetupQueues()
		d.DriverOK()
		d.WaitNeedsReset()
	}
}

func TestConfigSpace(t *testing.T) {
	g := newGuest(t, Config{MTU: 9000, Pairs: 3})
	if mac := g.d.Config(0, 8) & (1<<48 - 1); mac != 0x010000000002 {
		t.Errorf("MAC %x", mac)
	}
	for off, want := range map[uint64]uint64{6: statusUp, 8: 3, 10: 9000} {
		if got := g.d.Config(off, 2); got != want {
			t.Errorf("field at %d is %d, want %d", off, got, want)
		}
	}
	g.d.SetConfig(0, 4, 0xffffffff)
	if b := g.d.Config(0, 1); b != 2 {
		t.Errorf("the driver changed the MAC to %x", b)
	}
	if v := g.d.Config(17, 4); v != 0 {
		t.Errorf("%x behind the end", v)
	}
}

func TestLink(t *testing.T) {
	g := newGuest(t, Config{})
	g.offer(2, 2000)
	n := g.d.ConfigInterrupts()
	g.dev.SetLink(false)
	g.d.WaitConfig(n)
	if st := g.d.Config(6, 2); st != 0 {
		t.Errorf("status %d with the cable out", st)
	}
	g.send(hdr(0, 0, 0, 0, 0, 0), frameOf(60))
	if f := g.b.take(); len(f) != 0 {
		t.Error("a frame went through")
	}
	if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != ErrDown {
		t.Error(err)
	}
	g.dev.SetLink(true)
	g.d.WaitConfig(n + 1)
	if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != nil {
		t.Error(err)
	}
}

func TestMultiQueue(t *testing.T) {
	g := newGuest(t, Config{Pairs: 2})
	if n := g.dev.ActivePairs(); n != 1 {
		t.Errorf("%d pairs at first", n)
	}
	ctrl := g.d.Queues[4]
	set := func(class, cmd byte, n uint16) byte {
		u := ctrl.Do([][]byte{{class, cmd}, binary.LittleEndian.AppendUint16(nil, n)}, 1)
		return u.Data[0]
	}
	for _, bad := range [][3]uint16{{4, 0, 0}, {4, 0, 3}, {4, 1, 1}, {0, 0, 1}} {
		if st := set(byte(bad[0]), byte(bad[1]), bad[2]); st != ctrlErr {
			t.Errorf("%v was accepted", bad)
		}
	}
	if u := ctrl.Do([][]byte{{4}}, 1); u.Data[0] != ctrlErr {
		t.Error("half a command was accepted")
	}
	if st := set(4, 0, 2); st != ctrlOK || g.dev.ActivePairs() != 2 {
		t.Errorf("status %d, %d pairs", st, g.dev.ActivePairs())
	}
	g.d.Queues[3].Do([][]byte{hdr(0, 0, 0, 0, 0, 0), frameOf(60)})
	if f := g.b.take(); len(f) != 1 || f[0].Pair != 1 {
		t.Errorf("frames %v", f)
	}
	g.d.Queues[2].Add(nil, []int{2000})
	if err := g.dev.Receive(1, &Header{}, [][]byte{frameOf(60)}); err != nil && err != ErrNoBuffers {
		t.Error(err)
	}
	g.d.CheckHealthy()
}

// TestMultiQueueUnused is a driver that takes the control queue and one pair.
func TestMultiQueueUnused(t *testing.T) {
	g := newGuest(t, Config{Pairs: 2}, virtiotest.Options{Refuse: featureMQ})
	if u := g.d.Queues[2].Do([][]byte{{4, 0, 2, 0}}, 1); u.Data[0] != ctrlErr {
		t.Error("pairs were set without MQ")
	}
	if err := g.dev.Receive(1, &Header{}, [][]byte{frameOf(60)}); err != ErrDown {
		t.Error(err)
	}
	g.d.Queues[3].Add([][]byte{hdr(0, 0, 0, 0, 0, 0), frameOf(60)}, nil)
	g.d.Queues[3].ForceKick()
	g.send(hdr(0, 0, 0, 0, 0, 0), frameOf(61))
	if f := g.b.take(); len(f) != 1 || len(f[0].Data) != 61 {
		t.Errorf("frames %v", f)
	}
}

func TestSaveRestore(t *testing.T) {
	cfg := Config{Pairs: 2, MTU: 4000}
	g := newGuest(t, cfg)
	g.d.Queues[4].Do([][]byte{{4, 0, 2, 0}}, 1)
	g.offer(4, 2000)
	g.dev.SetLink(false)
	g.dev.SetLink(true)
	g.d.T.Pause()
	if err := g.dev.Receive(0, &Header{}, [][]byte{frameOf(60)}); err != ErrNoBuffers {
		t.Errorf("Receive while paused: %v", err)
	}
	b, err := json.Marshal(g.dev.Save())
	if err != nil {
		t.Fatal(err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	cfg.Backend, cfg.MAC, cfg.QueueSize = newRecorder(), testMAC, 64
	for name, change := range map[string]func(*State){
		"version": func(s *State) { s.Version++ },
		"MAC":     func(s *State) { s.MAC[5]++ },
		"MTU":     func(s *State) { s.MTU++ },
		"pairs":   func(s *State) { s.ActivePairs = 3 },
	} {
		bad := s
		change(&bad)
		dev, _ := New(cfg)
		if err := dev.Restore(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Restore(s); err != nil {
		t.Fatal(err)
	}
	g.d.Migrate(dev)
	g.dev = dev
	g.b = cfg.Backend.(*recorder)
	g.b.waitReady(t, 0)
	if n := dev.ActivePairs(); n != 2 {
		t.Errorf("%d active pairs", n)
	}
	if err := dev.Receive(0, &Header{}, [][]byte{frameOf(3000)}); err != nil {
		t.Fatal(err)
	}
	dev.Flush(0)
	g.received(frameOf(3000), hdr(0, 0, 0, 0, 0, 0))
	g.send(hdr(0, 0, 0, 0, 0, 0), frameOf(60))
	if f := g.b.take(); len(f) != 1 {
		t.Errorf("frames %v", f)
	}
	g.d.CheckHealthy()
}

// TestConcurrent lets backend, driver, resets and pauses run at the same time.
func TestConcurrent(t *testing.T) {
	g := newGuest(t, Config{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			f := [][]byte{frameOf(700), frameOf(1000)}
			for {
				select {
				case <-stop:
					return
				default:
				}
				_ = g.dev.Receive(0, &Header{}, f)
				g.dev.Flush(0)
				g.dev.WakeTransmit(0)
				g.dev.Offloads()
			}
		})
	}
	for range 20 {
		g.offer(20, 1000)
		g.send(hdr(0, 0, 0, 0, 0, 0), frameOf(100))
		g.d.T.Pause()
		g.d.T.Resume()
		g.dev.SetLink(false)
		g.dev.SetLink(true)
		g.d.Restart()
	}
	close(stop)
	wg.Wait()
	g.d.CheckHealthy()
}

func TestBadConfig(t *testing.T) {
	good := Config{Backend: newRecorder(), MAC: testMAC}
	for field, change := range map[string]func(*Config){
		"Backend":   func(c *Config) { c.Backend = nil },
		"MAC":       func(c *Config) { c.MAC[0] = 1 },
		"MTU":       func(c *Config) { c.MTU = 576 },
		"Pairs":     func(c *Config) { c.Pairs = 17 },
		"QueueSize": func(c *Config) { c.QueueSize = 100 },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
	dev, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if dev.ID() != virtio.IDNet || dev.MTU() != DefaultMTU || dev.MAC() != testMAC {
		t.Error("defaults")
	}
	plain, err := New(Config{Backend: newRecorder(), MAC: testMAC, NoOffloads: true})
	if err != nil || plain.Features()&offloads != 0 {
		t.Errorf("offloads are offered: %v", err)
	}
}
