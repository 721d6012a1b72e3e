package vsock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestConfig(t *testing.T) {
	for _, cid := range []uint64{0, 1, 2, 1<<32 - 1, 1 << 40} {
		if _, err := New(Config{GuestCID: cid}); err == nil {
			t.Errorf("CID %d is accepted", cid)
		}
	}
	for _, c := range []Config{
		{GuestCID: 3, MaxConns: -1},
		{GuestCID: 3, RecvBuffer: -1},
		{GuestCID: 3, QueueSize: 100},
		{GuestCID: 3, RXQueueSize: 100},
		{GuestCID: 3, CloseTimeout: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	g := newGuest(t, Config{}, 0)
	if got := g.d.Config(0, 8); got != testCID {
		t.Errorf("guest_cid %d", got)
	}
	g.d.SetConfig(0, 8, 99)
	if got := g.d.Config(0, 4); got != testCID {
		t.Errorf("guest_cid %d after a write", got)
	}
	if got := g.d.Config(6, 8); got != 0 {
		t.Errorf("beyond the end: %#x", got)
	}
}

func TestAcceptReadWrite(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	c := g.connect()
	g.send(packet(opData, 1024, 5000), []byte("hello"))
	buf := make([]byte, 16)
	n, err := c.Read(buf)
	if err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if _, err := c.Write([]byte("world")); err != nil {
		t.Fatal(err)
	}
	h, data := g.recv()
	want := header{
		srcCID: HostCID, dstCID: testCID, srcPort: 1024, dstPort: 5000, length: 5,
		typ: typeStream, op: opData, bufAlloc: DefaultRecvBuffer, fwdCnt: 5,
	}
	if diff := cmp.Diff(want, h, cmp.AllowUnexported(header{})); diff != "" || string(data) != "world" {
		t.Errorf("data packet (-want +got):\n%s%q", diff, data)
	}
	c.Close()
	if h := g.expect(opShutdown); h.flags != shutBoth {
		t.Errorf("shutdown flags %d", h.flags)
	}
	g.send(packet(opReset, 1024, 5000), nil)
	waitFor(t, func() bool { return g.dev.Stats().Conns == 0 })
	g.d.CheckHealthy()
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("condition does not come true")
		}
	}
}

func TestDial(t *testing.T) {
	g := newGuest(t, Config{MaxConns: 1}, 16)
	ctx := testContext(t)
	type result struct {
		c   net.Conn
		err error
	}
	dial := func(ctx context.Context) chan result {
		ch := make(chan result, 1)
		go func() {
			c, err := g.dev.Dial(ctx, 22)
			ch <- result{c, err}
		}()
		return ch
	}

	ch := dial(ctx)
	h := g.expect(opRequest)
	if h.dstPort != 22 || h.srcPort < firstDialPort {
		t.Errorf("request %+v", h)
	}
	g.send(packet(opReset, h.srcPort, 22), nil)
	if r := <-ch; !errors.Is(r.err, ErrRefused) || !errors.Is(r.err, syscall.ECONNREFUSED) {
		t.Fatalf("refused dial: %v", r.err)
	}

	cctx, cancel := context.WithCancel(ctx)
	ch = dial(cctx)
	h = g.expect(opRequest)
	cancel()
	if r := <-ch; !errors.Is(r.err, context.Canceled) {
		t.Fatalf("cancelled dial: %v", r.err)
	}
	if r := g.expect(opReset); r.srcPort != h.srcPort {
		t.Errorf("reset of port %d, want %d", r.srcPort, h.srcPort)
	}
	// The answer comes too late.
	g.send(packet(opResponse, h.srcPort, 22), nil)
	g.expect(opReset)

	ch = dial(ctx)
	h = g.expect(opRequest)
	g.send(packet(opResponse, h.srcPort, 22), nil)
	r := <-ch
	if r.err != nil {
		t.Fatal(r.err)
	}
	if r := <-dial(ctx); !errors.Is(r.err, ErrTooMany) {
		t.Errorf("dial over the limit: %v", r.err)
	}
	g.send(packet(opReset, h.srcPort, 22), nil)
	if _, err := r.c.Read(make([]byte, 1)); !errors.Is(err, ErrReset) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a reset: %v", err)
	}
	if _, err := r.c.Write(make([]byte, 1)); !errors.Is(err, ErrReset) {
		t.Errorf("write after a reset: %v", err)
	}
	r.c.Close()
	g.dev.mu.Lock()
	defer g.dev.mu.Unlock()
	if g.dev.open != 0 || g.dev.promised != 0 {
		t.Errorf("open %d, promised %d after all is closed", g.dev.open, g.dev.promised)
	}
}

// While the machine is paused a Write leaves guest memory alone.
func TestQuiesce(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	c := g.connect()
	g.d.T.Pause()
	g.dev.Quiesce()
	used, err := g.d.Mem.LoadUint16(g.d.Queues[queueRX].UsedAddr + 2)
	if err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	if n, err := c.Write([]byte("early")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write while paused: %d, %v", n, err)
	}
	if v, _ := g.d.Mem.LoadUint16(g.d.Queues[queueRX].UsedAddr + 2); v != used {
		t.Error("the ring moved while paused")
	}
	c.SetWriteDeadline(time.Time{})
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte("late"))
		wrote <- err
	}()
	g.d.T.Resume()
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if _, data := g.recv(); string(data) != "late" {
		t.Errorf("got %q", data)
	}
}

func TestDialWaitsForDriver(t *testing.T) {
	dev, err := New(Config{GuestCID: testCID, RXQueueSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.Attach(t, dev)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := dev.Dial(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial without a driver: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := dev.Dial(testContext(t), 1)
		done <- err
	}()
	d.Start()
	g := &guest{t: t, dev: dev, d: d}
	g.giveBuffers(1, 4096)
	h := g.expect(opRequest)
	g.send(packet(opReset, h.srcPort, 1), nil)
	if err := <-done; !errors.Is(err, ErrRefused) {
		t.Errorf("dial: %v", err)
	}

	d.Reset()
	go func() {
		_, err := dev.Dial(testContext(t), 1)
		done <- err
	}()
	dev.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial of a closed device: %v", err)
	}
	if _, err := dev.Listen(1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listen on a closed device: %v", err)
	}
}

func TestListener(t *testing.T) {
	g := newGuest(t, Config{Backlog: 2}, 16)
	l := g.listen(9)
	if _, err := g.dev.Listen(9); !errors.Is(err, ErrPortInUse) {
		t.Errorf("second listener: %v", err)
	}
	l.SetDeadline(time.Unix(1, 0))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("accept past the deadline: %v", err)
	}
	l.SetDeadline(time.Time{})
	for port := range uint32(3) {
		g.send(packet(opRequest, 9, port), nil)
		want := uint16(opResponse)
		if port == 2 {
			want = opReset // backlog full
		}
		if h := g.expect(want); h.dstPort != port {
			t.Errorf("answer to port %d, want %d", h.dstPort, port)
		}
	}
	g.send(packet(opRequest, 10, 1), nil)
	g.expect(opReset) // nobody listens
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.RemoteAddr().(Addr); got != (Addr{CID: testCID, Port: 0}) {
		t.Errorf("first accepted is %v", got)
	}
	accept := make(chan error)
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				accept <- err
				return
			}
		}
	}()
	waitFor(t, func() bool { g.dev.mu.Lock(); defer g.dev.mu.Unlock(); return len(l.queue) == 0 })
	l.Close()
	if err := <-accept; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	g.listen(9) // free again
}

// Closing a listener resets what nobody accepted.
func TestListenerCloseResetsBacklog(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	l := g.listen(9)
	g.send(packet(opRequest, 9, 1), nil)
	g.expect(opResponse)
	l.Close()
	g.expect(opReset)
	waitFor(t, func() bool { return g.dev.Stats().Conns == 0 })
	g.dev.mu.Lock()
	defer g.dev.mu.Unlock()
	if g.dev.open != 0 || g.dev.promised != 0 {
		t.Errorf("open %d, promised %d", g.dev.open, g.dev.promised)
	}
}

func TestResetDropsConnections(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	c := g.connect()
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 4<<20)) // more than the guest's window
		wrote <- err
	}()
	dialed := make(chan error, 1)
	g.recv()
	go func() {
		_, err := g.dev.Dial(testContext(t), 5)
		dialed <- err
	}()
	waitFor(t, func() bool { return g.dev.Stats().Conns == 2 })
	g.d.Restart()
	for _, ch := range []chan error{read, wrote, dialed} {
		if err := <-ch; !errors.Is(err, ErrReset) {
			t.Errorf("after reset: %v", err)
		}
	}
	// The next driver hears nothing of the old connections, and the listener
	// is still there.
	g.giveBuffers(16, 4096)
	g.send(packet(opRequest, 1024, 1), nil)
	if h := g.expect(opResponse); h.dstPort != 1 {
		t.Errorf("answer to %d", h.dstPort)
	}
	g.d.CheckHealthy()
}

func TestCloseTimeoutResets(t *testing.T) {
	g := newGuest(t, Config{CloseTimeout: time.Millisecond}, 16)
	c := g.connect()
	c.Close()
	g.expect(opShutdown)
	g.expect(opReset)
	waitFor(t, func() bool { return g.dev.Stats().Conns == 0 })
}

func TestSaveRestore(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	old := g.connect()
	for range 4 {
		g.d.Queues[queueEvent].Add(nil, []int{4})
	}
	g.d.Queues[queueEvent].Kick()

	g.d.T.Pause()
	b, err := json.Marshal(g.dev.Save())
	if err != nil {
		t.Fatal(err)
	}
	var st State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	dev, err := New(Config{GuestCID: testCID, RXQueueSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Restore(State{Version: 99}); err == nil {
		t.Error("unknown version is accepted")
	}
	if err := dev.Restore(st); err != nil {
		t.Fatal(err)
	}
	g.d.Migrate(dev)
	g.dev = dev
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, ErrReset) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a connection of the old device: %v", err)
	}

	ev := g.d.Queues[queueEvent].MustUsed()
	if !bytes.Equal(ev.Data, []byte{0, 0, 0, 0}) {
		t.Errorf("event %v", ev.Data)
	}
	// A dial must not reach the driver before it has handled the event.
	dialed := make(chan error, 1)
	go func() {
		_, err := dev.Dial(testContext(t), 5)
		dialed <- err
	}()
	select {
	case err := <-dialed:
		t.Fatalf("dial returned: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if n := dev.Stats().Conns; n != 0 {
		t.Fatalf("dial went ahead")
	}
	g.d.Queues[queueEvent].Add(nil, []int{4})
	g.d.Queues[queueEvent].Kick()
	h := g.expect(opRequest)
	g.send(packet(opReset, h.srcPort, 5), nil)
	if err := <-dialed; !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	// All event buffers are available again.
	g.d.T.Pause()
	if n := len(g.d.Queues[queueEvent].D.T.NotifyFDs()); n != 3 {
		t.Errorf("%d notify fds", n)
	}
	ts, err := g.d.T.Save()
	if err != nil {
		t.Fatal(err)
	}
	if r := ts.Queues[queueEvent].Ring; len(r.InFlight) != 0 || r.NextAvail != 1 {
		t.Errorf("event ring %+v", r)
	}
	g.d.T.Resume()
	g.d.CheckHealthy()
}

// A guest without connections is not told that they are gone: dials need not wait.
func TestRestoreAlone(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	g.d.Queues[queueEvent].Add(nil, []int{4})
	g.d.Queues[queueEvent].Kick()
	g.d.T.Pause()
	dev, err := New(Config{GuestCID: testCID, RXQueueSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Restore(g.dev.Save()); err != nil {
		t.Fatal(err)
	}
	g.d.Migrate(dev)
	g.dev = dev
	go dev.Dial(testContext(t), 5)
	h := g.expect(opRequest)
	g.send(packet(opReset, h.srcPort, 5), nil)
	g.d.T.Pause()
	ts, err := g.d.T.Save()
	if err != nil {
		t.Fatal(err)
	}
	if r := ts.Queues[queueEvent].Ring; r.NextUsed != 0 {
		t.Errorf("event ring %+v: there was an event", r)
	}
	g.d.T.Resume()
	g.d.CheckHealthy()
}

// The timer that waits for the driver to handle the event gives up.
func TestRestoreWithoutEventBuffers(t *testing.T) {
	dev, err := New(Config{GuestCID: testCID, RXQueueSize: 256})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Restore(State{Version: StateVersion}); err != nil {
		t.Fatal(err)
	}
	dev.event.timeout = time.Millisecond
	g := &guest{t: t, dev: dev, d: virtiotest.New(t, dev)}
	g.giveBuffers(4, 4096)
	go dev.Dial(testContext(t), 5)
	h := g.expect(opRequest)
	g.send(packet(opReset, h.srcPort, 5), nil)
}

// Write deadlines pass while the guest gives no buffers.
func TestWriteDeadline(t *testing.T) {
	g := newGuest(t, Config{}, 1)
	c := g.connect()
	c.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	n, err := c.Write(make([]byte, 1<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n != 4096-headerSize {
		t.Errorf("wrote %d, %v", n, err)
	}
	c.SetWriteDeadline(time.Time{})
	g.recv()
	if _, err := c.Write([]byte("more")); err != nil {
		t.Error(err)
	}
	if _, data := g.recv(); string(data) != "more" {
		t.Errorf("got %q", data)
	}
}

func TestDeadlineTimerIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Config{GuestCID: testCID, RXQueueSize: 256})
		if err != nil {
			t.Fatal(err)
		}
		c := newConn(d, 1, 2, 1<<16)
		c.SetReadDeadline(time.Now().Add(time.Second))
		c.SetReadDeadline(time.Now().Add(time.Hour))
		began := time.Now()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if waited := time.Since(began); waited != time.Hour {
			t.Errorf("waited %v", waited)
		}
	})
}

var _ io.ReadWriteCloser = (*Conn)(nil)
