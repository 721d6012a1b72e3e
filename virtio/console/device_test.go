package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink collects output. While it is blocked, Write waits.
type sink struct {
	mu      sync.Mutex
	cond    sync.Cond
	buf     []byte
	blocked bool
	waiting bool
	err     error
}

func newSink() *sink {
	s := &sink{}
	s.cond.L = &s.mu
	return s
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = true
	s.cond.Broadcast()
	for s.blocked {
		s.cond.Wait()
	}
	s.waiting = false
	if s.err != nil {
		return 0, s.err
	}
	s.buf = append(s.buf, p...)
	s.cond.Broadcast()
	return len(p), nil
}

func (s *sink) block(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = on
	s.cond.Broadcast()
}

// awaitWriter waits until somebody is blocked in Write.
func (s *sink) awaitWriter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.waiting {
		s.cond.Wait()
	}
}

// wait waits until n bytes came and returns all.
func (s *sink) wait(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) < n {
		s.cond.Wait()
	}
	return append([]byte(nil), s.buf...)
}

func TestOutput(t *testing.T) {
	out := newSink()
	dev := New(Config{Out: out})
	d := virtiotest.New(t, dev)
	var want []byte
	for _, s := range [][][]byte{
		{[]byte("hello, ")}, {[]byte("wor"), []byte("ld")}, {[]byte("")}, {nil, []byte("\n"), nil},
		{bytes.Repeat([]byte("x"), 3*outSize)}, // more than the buffer holds
		{[]byte("end")},
	} {
		if u := d.Queues[txQueue].Do(s); u.Len != 0 {
			t.Errorf("used length %d", u.Len)
		}
		want = append(want, bytes.Join(s, nil)...)
	}
	dev.Flush()
	if got := out.wait(len(want)); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	// Writable buffers in a transmit chain hold nothing for the host.
	d.Queues[txQueue].Do([][]byte{[]byte("!")}, 10)
	if got := out.wait(len(want) + 1); got[len(got)-1] != '!' {
		t.Errorf("got %q", got[len(got)-1])
	}
	d.CheckHealthy()
}

func TestInput(t *testing.T) {
	r, w := io.Pipe()
	dev := New(Config{In: r})
	d := virtiotest.New(t, dev)
	q := d.Queues[rxQueue]
	defer w.Close()

	q.Add(nil, []int{4})
	q.Kick()
	go w.Write([]byte("hello, world"))
	var got []byte
	for len(got) < 12 {
		u := q.MustUsed()
		if u.Len == 0 || u.Len > 4 {
			t.Fatalf("%d bytes", u.Len)
		}
		got = append(got, u.Data...)
		// Nothing is lost while there is no buffer.
		q.Add(nil, []int{4})
		q.Kick()
	}
	if string(got) != "hello, world" {
		t.Errorf("%q", got)
	}
	// A buffer without room gets nothing, and costs nothing.
	d.Restart()
	q = d.Queues[rxQueue]
	go w.Write([]byte("x"))
	q.Add([][]byte{[]byte("readable")}, nil)
	q.Add(nil, []int{10})
	q.Kick()
	if a, b := q.MustUsed(), q.MustUsed(); a.Len != 0 || string(b.Data) != "x" {
		t.Errorf("%+v, %+v", a, b)
	}
	d.CheckHealthy()
}

// TestInputBounded: input that the guest does not take is not read any more, and
// survives a reset.
func TestInputBounded(t *testing.T) {
	r, w := io.Pipe()
	dev := New(Config{In: r})
	d := virtiotest.New(t, dev)
	chunk := bytes.Repeat([]byte("0123456789abcdef"), inChunk/16)
	for range inSize / inChunk {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	more := make(chan error, 1)
	go func() { _, err := w.Write(chunk); more <- err }()
	dev.mu.Lock()
	n := len(dev.inBuf)
	dev.mu.Unlock()
	if n > inSize {
		t.Errorf("%d bytes are buffered", n)
	}
	d.Restart()
	var got []byte
	for len(got) < inSize+inChunk {
		d.Queues[rxQueue].Add(nil, []int{1000})
		d.Queues[rxQueue].Kick()
		got = append(got, d.Queues[rxQueue].MustUsed().Data...)
	}
	if err := <-more; err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, bytes.Repeat(chunk, inSize/inChunk+1)) {
		t.Error("input was lost or mixed up")
	}
	w.Close()
}

// TestSlowOut is CVE-2020-27174: a console buffer that grew as long as the guest
// wrote and nobody read. Here the guest waits, and so nothing grows.
func TestSlowOut(t *testing.T) {
	out := newSink()
	out.block(true)
	dev := New(Config{Out: out})
	d := virtiotest.New(t, dev)
	q := d.Queues[txQueue]
	line := bytes.Repeat([]byte("."), 8<<10)
	q.Add([][]byte{line}, nil)
	q.Kick()
	out.awaitWriter() // the first piece is on its way
	done := 1
	q.MustUsed()
	for range queueSize - 1 {
		q.Add([][]byte{line}, nil)
	}
	q.Kick()
	for done < 1+outSize/len(line) {
		q.MustUsed()
		done++
	}
	// Both buffers are full at the most; the rest stays with the guest.
	d.T.Pause()
	d.T.Resume()
	for {
		if _, ok := q.TryUsed(); !ok {
			break
		}
		done++
	}
	if taken := done * len(line); taken > 2*outSize {
		t.Errorf("%d bytes were taken, the buffers hold %d", taken, 2*outSize)
	}
	// The vCPU is not held up by it: registers answer, and so does a reset.
	d.Restart()
	q = d.Queues[txQueue]
	out.block(false)
	q.Do([][]byte{[]byte("end")})
	dev.Flush()
	got := out.wait(1)
	if !bytes.HasSuffix(got, []byte("end")) || len(got) > 2*outSize+3 {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-3:])
	}
	d.CheckHealthy()
}

func TestSlowOutContinues(t *testing.T) {
	out := newSink()
	out.block(true)
	dev := New(Config{Out: out})
	d := virtiotest.New(t, dev)
	q := d.Queues[txQueue]
	var want []byte
	for i := range 30 {
		b := bytes.Repeat([]byte{byte('a' + i%26)}, 9000)
		want = append(want, b...)
		q.Add([][]byte{b[:1000], b[1000:]}, nil)
	}
	q.Kick()
	out.awaitWriter()
	out.block(false)
	for range 30 {
		q.MustUsed()
	}
	dev.Flush()
	if got := out.wait(len(want)); !bytes.Equal(got, want) {
		t.Error("output was lost or mixed up")
	}
}

func TestOutFails(t *testing.T) {
	out := newSink()
	out.err = errors.New("disk full")
	dev := New(Config{Out: out})
	d := virtiotest.New(t, dev)
	// The guest goes on as if nothing happened, for more than any buffer.
	for range 10 {
		d.Queues[txQueue].Do([][]byte{make([]byte, outSize)})
	}
	dev.Flush()
	if err := dev.Err(); !errors.Is(err, out.err) {
		t.Errorf("%v", err)
	}
	d.CheckHealthy()
}

func TestPanicsAndShortWrites(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg  Config
		want error
	}{
		"panic in Out": {Config{Out: badWriter(func(p []byte) (int, error) { panic("no") })}, virtio.ErrPanic},
		"short write":  {Config{Out: badWriter(func(p []byte) (int, error) { return len(p) - 1, nil })}, io.ErrShortWrite},
	} {
		t.Run(name, func(t *testing.T) {
			dev := New(tt.cfg)
			d := virtiotest.New(t, dev)
			d.Queues[txQueue].Do([][]byte{[]byte("x")})
			dev.Flush()
			if err := dev.Err(); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
	dev := New(Config{In: badReader(func([]byte) (int, error) { panic("no") })})
	virtiotest.New(t, dev)
	<-dev.readerDone
	if err := dev.Err(); !errors.Is(err, virtio.ErrPanic) {
		t.Errorf("%v", err)
	}
}

type badWriter func([]byte) (int, error)

func (f badWriter) Write(p []byte) (int, error) { return f(p) }

type badReader func([]byte) (int, error)

func (f badReader) Read(p []byte) (int, error) { return f(p) }

func TestInputEnds(t *testing.T) {
	dev := New(Config{In: strings.NewReader("last words")})
	d := virtiotest.New(t, dev)
	q := d.Queues[rxQueue]
	if u := q.Do(nil, 100); string(u.Data) != "last words" {
		t.Errorf("%q", u.Data)
	}
	<-dev.readerDone
	if err := dev.Err(); err != nil {
		t.Errorf("%v", err)
	}
	d.CheckHealthy()
}

func TestNothingAttached(t *testing.T) {
	d := virtiotest.New(t, New(Config{}))
	for range 10 {
		d.Queues[txQueue].Do([][]byte{make([]byte, 2*outSize)})
	}
	d.CheckHealthy()
}

func TestResize(t *testing.T) {
	dev := New(Config{Cols: 80, Rows: 25})
	d := virtiotest.Attach(t, dev)
	if got := d.Config(0, 4); got != 25<<16|80 {
		t.Errorf("size %#x", got)
	}
	dev.Resize(100, 30) // nobody is there to be told
	d.Start()
	if d.Features&FeatureSize == 0 {
		t.Error("F_SIZE is not offered")
	}
	n := d.ConfigInterrupts()
	gen := d.Read32(virtio.RegConfigGeneration)
	dev.Resize(132, 43)
	d.WaitConfig(n)
	if cols, rows := d.Config(0, 2), d.Config(2, 2); cols != 132 || rows != 43 {
		t.Errorf("%d columns, %d rows", cols, rows)
	}
	if d.Read32(virtio.RegConfigGeneration) == gen {
		t.Error("the generation did not change")
	}
	d.SetConfig(0, 4, 0)
	if got := d.Config(0, 8); got != 43<<16|132 {
		t.Errorf("config %#x", got)
	}
	d.CheckHealthy()
}

// TestCloseBlocked: Close ends although reader and writer block, when they have
// deadlines, and leaves them usable.
func TestCloseBlocked(t *testing.T) {
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outA, outB := net.Pipe() // nobody reads the other end
	for _, f := range []io.Closer{inR, inW, outA, outB} {
		defer f.Close()
	}
	dev := New(Config{In: inR, Out: outA})
	d := virtiotest.New(t, dev)
	d.Queues[txQueue].Do([][]byte{[]byte("stuck")})
	if err := d.T.Close(); err != nil {
		t.Error(err)
	}
	<-dev.readerDone
	<-dev.writerDone
	if _, err := inW.Write([]byte("later")); err != nil {
		t.Error(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(inR, got); err != nil || string(got) != "later" {
		t.Errorf("%q, %v", got, err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseAbandons: a writer without deadlines cannot be interrupted; Close gives
// up on it after closeFlush and its goroutine ends with the write.
func TestCloseAbandons(t *testing.T) {
	out := newSink()
	out.block(true)
	dev := New(Config{Out: out})
	d := virtiotest.New(t, dev)
	d.Queues[txQueue].Do([][]byte{[]byte("stuck")})
	out.awaitWriter()
	start := time.Now()
	if err := d.T.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < closeFlush {
		t.Errorf("Close gave up after %v", took)
	}
	out.block(false)
	<-dev.writerDone
}

// TestCloseFlushes: what the guest said last is not lost.
func TestCloseFlushes(t *testing.T) {
	out := newSink()
	out.block(true)
	d := virtiotest.New(t, New(Config{Out: out}))
	d.Queues[txQueue].Do([][]byte{[]byte("Kernel panic - ")})
	out.awaitWriter()
	d.Queues[txQueue].Do([][]byte{[]byte("not syncing")})
	go out.block(false)
	if err := d.T.Close(); err != nil {
		t.Error(err)
	}
	if got := out.wait(0); string(got) != "Kernel panic - not syncing" {
		t.Errorf("%q", got)
	}
}

func TestCloseUnused(t *testing.T) {
	dev := New(Config{In: badReader(func([]byte) (int, error) { t.Error("read"); return 0, io.EOF })})
	d := virtiotest.Attach(t, dev)
	if err := d.T.Close(); err != nil {
		t.Error(err)
	}
}

func TestSaveRestore(t *testing.T) {
	out := newSink()
	out.block(true)
	r, w := io.Pipe()
	dev := New(Config{In: r, Out: out, Cols: 80, Rows: 25})
	d := virtiotest.New(t, dev)
	q := d.Queues[txQueue]
	// Input that nobody took, and a chain that was taken in part.
	if _, err := w.Write([]byte("typed")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	<-dev.readerDone
	first := bytes.Repeat([]byte("1"), 1000)
	q.Do([][]byte{first})
	out.awaitWriter()
	second := bytes.Repeat([]byte("23"), outSize)
	q.Add([][]byte{second[:1000], second[1000:]}, nil)
	q.Kick()
	dev.mu.Lock()
	for dev.txHead < 0 {
		dev.changed.Wait()
	}
	dev.mu.Unlock()
	d.T.Pause()
	b, err := json.Marshal(dev.Save())
	if err != nil {
		t.Fatal(err)
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(State{Version: 1, Cols: 80, Rows: 25, Input: []byte("typed"), TxHead: st.TxHead, TxOffset: outSize}, st); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	out2 := newSink()
	dev2 := New(Config{Out: out2})
	if err := dev2.Restore(st); err != nil {
		t.Fatal(err)
	}
	out.block(false)
	d.Migrate(dev2)
	q.MustUsed()
	dev2.Flush()
	// Both halves together are the whole.
	whole := append(append([]byte{}, first...), second...)
	if got := append(out.wait(len(first)+outSize), out2.wait(outSize)...); !bytes.Equal(got, whole) {
		t.Errorf("%d bytes, want %d", len(got), len(whole))
	}
	if got := d.Config(0, 4); got != 25<<16|80 {
		t.Errorf("size %#x", got)
	}
	if u := d.Queues[rxQueue].Do(nil, 10); string(u.Data) != "typed" {
		t.Errorf("%q", u.Data)
	}
	d.CheckHealthy()
}

// TestRestoreHostile: CVE-2013-4150 and its kin.
func TestRestoreHostile(t *testing.T) {
	for name, st := range map[string]State{
		"version":        {Version: 2, TxHead: -1},
		"input too long": {Version: 1, TxHead: -1, Input: make([]byte, inSize+1)},
		"head":           {Version: 1, TxHead: queueSize},
		"negative head":  {Version: 1, TxHead: -2},
	} {
		if err := New(Config{}).Restore(st); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Heads that only the queue can judge: restoring the transport fails.
	src := virtiotest.New(t, New(Config{}))
	src.T.Pause()
	ts, err := src.T.Save()
	if err != nil {
		t.Fatal(err)
	}
	held := ts
	held.Queues = append([]virtio.QueueState(nil), ts.Queues...)
	held.Queues[txQueue].Ring.NextAvail = 1
	held.Queues[txQueue].Ring.InFlight = []uint16{3}
	unready := held
	unready.Queues = append([]virtio.QueueState(nil), held.Queues...)
	unready.Queues[txQueue].Ready = false
	for name, tt := range map[string]struct {
		dev State
		t   virtio.State
	}{
		"not in flight":      {State{Version: 1, TxHead: 3}, ts},
		"another in flight":  {State{Version: 1, TxHead: 4}, held},
		"offset behind it":   {State{Version: 1, TxHead: 3, TxOffset: 100}, held},
		"offset far outside": {State{Version: 1, TxHead: 3, TxOffset: ^uint64(0)}, held},
		"no queue":           {State{Version: 1, TxHead: 3}, unready},
	} {
		dev := New(Config{})
		if err := dev.Restore(tt.dev); err != nil {
			t.Fatal(err)
		}
		d := virtiotest.Attach(t, dev, virtiotest.Options{Mem: src.Mem})
		d.T.Pause()
		if err := d.T.Restore(tt.t); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileRings: a broken ring ends the session and not the device.
func TestHostileRings(t *testing.T) {
	for name, f := range map[string]func(d *virtiotest.Driver){
		"transmit loop (CVE-2016-6490)": func(d *virtiotest.Driver) {
			d.Queues[txQueue].AddRaw(virtiotest.Desc{Addr: virtiotest.MemBase, Flags: virtiotest.DescNext})
		},
		"transmit from registers (CVE-2024-3446)": func(d *virtiotest.Driver) {
			d.Queues[txQueue].AddRaw(virtiotest.Desc{Addr: 0xd0000000, Len: 8})
		},
		"receive index (CVE-2020-13759)": func(d *virtiotest.Driver) {
			d.Queues[rxQueue].PokeAvailIndex(1000)
			d.Queues[rxQueue].ForceKick()
		},
	} {
		t.Run(name, func(t *testing.T) {
			out := newSink()
			d := virtiotest.New(t, New(Config{In: strings.NewReader("x"), Out: out}))
			f(d)
			d.WaitNeedsReset()
			d.CheckNoPanic()
			d.Restart()
			d.Queues[txQueue].Do([][]byte{[]byte("alive")})
			if got := out.wait(5); string(got) != "alive" {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestAllocs(t *testing.T) {
	dev := New(Config{})
	d := virtiotest.New(t, dev)
	d.T.Pause()
	q := d.Queues[txQueue]
	q.PokeDesc(0, virtiotest.Desc{Addr: virtiotest.MemBase + 1<<20, Len: 64})
	dev.session.Queue(txQueue).Halt(false) // the device's side alone, on this goroutine
	if n := testing.AllocsPerRun(100, func() {
		q.PokeAvail(0)
		if err := dev.HandleQueue(txQueue); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a chain", n)
	}
}
