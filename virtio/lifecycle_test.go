package virtio_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// TestResetInFlight is CVE-2026-45782: a reset while requests are in flight. It
// must not return before the device has let go of guest memory.
func TestResetInFlight(t *testing.T) {
	entered, release := make(chan int, 2), make(chan struct{})
	var working atomic.Int32
	dev := &echo{handle: func(q int) error {
		working.Add(1)
		defer working.Add(-1)
		entered <- q
		<-release
		return nil
	}}
	d := virtiotest.New(t, dev)
	<-entered
	<-entered // both queues are being served
	s := dev.session()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Write32(virtio.RegStatus, 0)
		if n := working.Load(); n != 0 {
			t.Errorf("reset returned while %d queues were at work", n)
		}
	}()
	select {
	case <-done:
		t.Error("reset did not wait")
	default:
	}
	close(release)
	<-done
	if d.Status() != 0 || dev.resetCount() != 1 {
		t.Errorf("status %#x, %d resets", d.Status(), dev.resetCount())
	}
	// The old session is inert.
	irqs := d.Interrupts()
	s.Wake(0)
	s.Notify(0)
	s.ConfigChanged()
	s.Fail(errTest)
	if d.Read32(virtio.RegInterruptStatus) != 0 || d.Interrupts() != irqs || d.Status() != 0 || len(d.Failures()) != 0 {
		t.Errorf("a session that ended still acts: status %#x, %v", d.Status(), d.Failures())
	}
}

// TestRestart lives many lives; nothing of one is seen in the next.
func TestRestart(t *testing.T) {
	dev := &echo{}
	d := virtiotest.New(t, dev)
	for i := range 50 {
		for _, q := range d.Queues {
			q.Add([][]byte{[]byte("unfinished")}, []int{16}) // reset with work in flight
			q.Kick()
		}
		d.Restart()
		for _, q := range d.Queues {
			if u := q.Do([][]byte{[]byte("hello")}, 16); string(u.Data) != "hello" {
				t.Fatalf("life %d: %q", i, u.Data)
			}
		}
	}
	if dev.resetCount() != 50 {
		t.Errorf("%d resets", dev.resetCount())
	}
	d.CheckHealthy()
}

func TestWake(t *testing.T) {
	runs := make(chan int)
	dev := &echo{handle: func(q int) error { runs <- q; return nil }}
	d := virtiotest.New(t, dev, virtiotest.Options{Unused: []int{1}})
	if q := <-runs; q != 0 { // once after activation
		t.Errorf("queue %d", q)
	}
	for range 100 {
		dev.session().Wake(0)
		<-runs
	}
	// Wakes that come while the queue is served lead to one more run.
	dev.session().Wake(0)
	for range 50 {
		dev.session().Wake(0)
	}
	<-runs
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range runs {
		}
	}()
	if err := d.T.Close(); err != nil {
		t.Error(err)
	}
	close(runs)
	<-drained
}

func TestPauseResume(t *testing.T) {
	dev := &echo{}
	d := virtiotest.New(t, dev)
	q := d.Queues[0]
	for range 20 {
		d.T.Pause()
		d.T.Pause() // idempotent
		q.Add([][]byte{[]byte("while paused")}, []int{16})
		q.Kick()
		if _, ok := q.TryUsed(); ok {
			t.Fatal("a paused device works")
		}
		if d.Status() != 15 {
			t.Errorf("status %#x", d.Status())
		}
		d.T.Resume()
		d.T.Resume()
		if u := q.MustUsed(); string(u.Data) != "while paused" {
			t.Fatalf("%q", u.Data)
		}
	}
	// A reset and a new start while paused: nothing runs before Resume.
	d.T.Pause()
	d.Restart()
	q = d.Queues[0]
	q.Add([][]byte{[]byte("new life")}, []int{16})
	q.Kick()
	if _, ok := q.TryUsed(); ok {
		t.Error("a paused device works")
	}
	d.T.Resume()
	if u := q.MustUsed(); string(u.Data) != "new life" {
		t.Errorf("%q", u.Data)
	}
	d.CheckHealthy()
}

// TestPauseUnderLoad: a guest that fills a queue faster than the device empties it
// cannot keep the device from pausing.
func TestPauseUnderLoad(t *testing.T) {
	started := make(chan struct{})
	var once sync.Once
	dev := &echo{}
	dev.handle = func(q int) error {
		var c virtq.Chain
		vq := dev.session().Queue(q)
		for {
			ok, err := vq.Next(&c)
			if !ok || err != nil {
				return err
			}
			vq.Push(c.Head, 0)
			once.Do(func() { close(started) })
		}
	}
	mem, err := guestmem.Allocate(guestmem.Range{GPA: virtiotest.MemBase, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, virtiotest.Options{Mem: mem})
	q := d.Queues[1]
	q.PokeDesc(0, virtiotest.Desc{Addr: virtiotest.MemBase, Len: 1})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		// Keep the one chain available for ever: its head is free again as
		// soon as the used index says so.
		var n uint16
		for {
			select {
			case <-stop:
				return
			default:
			}
			used, err := mem.LoadUint16(q.UsedAddr + 2)
			if err != nil {
				t.Error(err)
				return
			}
			if used == n {
				q.PokeAvail(0)
				q.ForceKick()
				n++
			}
		}
	})
	<-started
	for range 50 {
		d.T.Pause()
		d.T.Resume()
	}
	close(stop)
	wg.Wait()
	d.CheckHealthy()
	if err := errors.Join(d.T.Close(), mem.Close()); err != nil {
		t.Error(err)
	}
}

func TestFailure(t *testing.T) {
	for _, tt := range []struct {
		name string
		dev  *echo
		want error
	}{
		{"error", &echo{handle: func(int) error { return errTest }}, errTest},
		{"panic", &echo{handle: func(int) error { panic("out of cheese") }}, virtio.ErrPanic},
		{"nil dereference", &echo{handle: func(int) error { var p *int; *p = 1; return nil }}, virtio.ErrPanic},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := virtiotest.Attach(t, tt.dev)
			d.Negotiate(d.Offered())
			d.SetupQueues()
			d.DriverOK()
			if err := d.WaitNeedsReset(); !errors.Is(err, tt.want) {
				t.Errorf("failure %v, want %v", err, tt.want)
			}
			d.WaitConfig(0) // the driver is told
			// The device is dead until it is reset, for every queue.
			d.Queues[0].ForceKick()
			d.Queues[1].ForceKick()
			d.Write32(virtio.RegStatus, 15)
			if d.Status() != 79 {
				t.Errorf("status %#x", d.Status())
			}
			d.T.Pause() // waits for what the kicks started
			d.T.Resume()
			if n := len(d.Failures()); n != 1 {
				t.Errorf("%d failures reported, want 1", n)
			}
			tt.dev.mu.Lock()
			tt.dev.handle = nil
			tt.dev.mu.Unlock()
			d.Restart()
			d.Queues[0].Do([][]byte{{1}}, 1)
			if d.Status() != 15 {
				t.Errorf("status %#x after reset", d.Status())
			}
		})
	}
}

// TestBrokenRing: what virtq refuses ends in DEVICE_NEEDS_RESET, and only there.
func TestBrokenRing(t *testing.T) {
	for name, f := range map[string]func(q *virtiotest.Queue){
		"loop": func(q *virtiotest.Queue) { // CVE-2016-6490
			q.AddRaw(virtiotest.Desc{Addr: virtiotest.MemBase, Len: 1, Flags: virtiotest.DescNext})
		},
		"outside memory": func(q *virtiotest.Queue) { q.AddRaw(virtiotest.Desc{Addr: 0, Len: 1}) },
		"index jump":     func(q *virtiotest.Queue) { q.PokeAvailIndex(300); q.ForceKick() },
		"head":           func(q *virtiotest.Queue) { q.PokeAvail(q.Size); q.ForceKick() },
	} {
		t.Run(name, func(t *testing.T) {
			d := virtiotest.New(t, &echo{})
			f(d.Queues[1])
			if err := d.WaitNeedsReset(); err == nil {
				t.Error("no failure")
			}
			d.CheckNoPanic()
			d.Restart()
			for _, q := range d.Queues {
				q.Do([][]byte{{1}}, 1)
			}
			if len(d.Failures()) != 1 {
				t.Errorf("%v", d.Failures())
			}
		})
	}
}

func TestActivateFails(t *testing.T) {
	dev := &echo{activate: errTest}
	d := virtiotest.Attach(t, dev)
	d.Negotiate(d.Offered())
	d.SetupQueues()
	if st := d.DriverOK(); st != 79 {
		t.Errorf("status %#x", st)
	}
	if err := d.WaitNeedsReset(); !errors.Is(err, errTest) {
		t.Errorf("%v", err)
	}
	d.Reset()
	if dev.resetCount() != 1 {
		t.Errorf("%d resets", dev.resetCount())
	}
}

func TestSessionFail(t *testing.T) {
	dev := &echo{}
	d := virtiotest.New(t, dev)
	dev.session().Fail(errTest)
	dev.session().Fail(errors.New("another"))
	if err := d.WaitNeedsReset(); !errors.Is(err, errTest) || len(d.Failures()) != 1 {
		t.Errorf("%v", d.Failures())
	}
}

// TestLogBounded: a guest that breaks its device again and again gets a
// logarithm's worth of lines.
func TestLogBounded(t *testing.T) {
	var buf bytes.Buffer
	var mu sync.Mutex
	mem, err := guestmem.FromBytes(virtiotest.MemBase, make([]byte, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	m, err := virtio.NewMMIO(&echo{activate: errTest}, virtio.MMIOOptions{
		Mem: mem, Name: "noisy",
		Logger: slog.New(slog.NewTextHandler(lockedWriter{&mu, &buf}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d := &virtiotest.Driver{TB: t, T: m, Mem: mem}
	for range 1000 {
		d.Write32(virtio.RegStatus, 0)
		d.Negotiate(virtio.FeatureVersion1)
		d.DriverOK()
	}
	mu.Lock()
	defer mu.Unlock()
	if n := bytes.Count(buf.Bytes(), []byte("\n")); n != 10 { // 1, 2, 4, ... 512
		t.Errorf("%d lines for 1000 failures\n%s", n, buf.Bytes())
	}
	if !bytes.Contains(buf.Bytes(), []byte("device=noisy")) {
		t.Errorf("no device name in %s", buf.Bytes())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

// TestTruncatedFile: a file under guest memory that loses its pages is a SIGBUS,
// which must end the device and not the process.
func TestTruncatedFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := guestmem.Allocate(guestmem.Range{GPA: virtiotest.MemBase, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const at = virtiotest.MemBase + 1<<19
	if err := mem.MapFile(at, f, 0, 1<<16); err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, &echo{}, virtiotest.Options{Mem: mem})
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	d.Queues[0].AddRaw(
		virtiotest.Desc{Addr: at, Len: 1, Flags: virtiotest.DescNext, Next: 1},
		virtiotest.Desc{Addr: virtiotest.MemBase, Len: 1, Flags: virtiotest.DescWrite})
	if err := d.WaitNeedsReset(); !errors.Is(err, virtio.ErrPanic) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(d.T.Close(), mem.Close()); err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	dev := &echo{}
	d := virtiotest.New(t, dev)
	d.Queues[0].Add([][]byte{{1}}, []int{1})
	s := dev.session()
	for range 2 {
		if err := d.T.Close(); err != nil {
			t.Error(err)
		}
	}
	if dev.resetCount() != 1 || dev.closed != 1 {
		t.Errorf("%d resets, %d closes", dev.resetCount(), dev.closed)
	}
	// Late accesses are harmless.
	d.Write32(virtio.RegStatus, 1)
	d.Write32(virtio.RegQueueNotify, 0)
	d.SetConfig(0, 4, 1)
	s.Wake(0)
	s.ConfigChanged()
	d.T.Pause()
	d.T.Resume()
	if d.Status() != 0 || d.Read32(virtio.RegQueueSizeMax) != 0 || d.Read32(virtio.RegMagicValue) == 0 {
		t.Error("a closed transport has a life")
	}
	if _, err := d.T.Save(); !errors.Is(err, virtio.ErrClosed) {
		t.Errorf("save: %v", err)
	}
	if err := d.T.Restore(virtio.State{}); !errors.Is(err, virtio.ErrClosed) {
		t.Errorf("restore: %v", err)
	}
}

// TestConcurrentVCPUs has several CPUs do everything at once, resets included.
func TestConcurrentVCPUs(t *testing.T) {
	mem, err := guestmem.Allocate(guestmem.Range{GPA: virtiotest.MemBase, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	dev := &echo{}
	d := virtiotest.New(t, dev, virtiotest.Options{Mem: mem})
	qs := d.Queues
	var wg sync.WaitGroup
	for cpu := range 4 {
		wg.Go(func() {
			d := &virtiotest.Driver{TB: t, T: d.T, Mem: mem}
			for i := range 300 {
				q := qs[(cpu+i)%len(qs)]
				switch (i + cpu*7) % 6 {
				case 0:
					d.Negotiate(offered)
					q.Configure()
					d.DriverOK()
				case 1:
					d.Write32(virtio.RegStatus, 0)
				case 2:
					q.PokeDesc(0, virtiotest.Desc{Addr: virtiotest.MemBase, Len: uint32(i)})
					q.PokeAvail(0)
					d.Write32(virtio.RegQueueNotify, uint32(q.Index))
				case 3:
					for off := uint64(0); off < 0x110; off += 4 {
						d.Read32(off)
					}
				case 4:
					if s := dev.session(); s != nil {
						s.Wake(0)
						s.ConfigChanged()
					}
				case 5:
					d.T.Pause()
					d.T.Resume()
				}
			}
		})
	}
	wg.Wait()
	d.CheckNoPanic()
	if err := errors.Join(d.T.Close(), mem.Close()); err != nil {
		t.Error(err)
	}
}
