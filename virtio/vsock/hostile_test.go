package vsock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// CVE-2026-23069 and CVE-2026-23086: credit that wraps, shrinks or is huge.
func TestCreditArithmetic(t *testing.T) {
	for _, tt := range []struct {
		name       string
		sent, seen uint32 // our count, the guest's last fwd_cnt
		alloc, fwd uint32 // what the guest says now
		ok         bool
		window     int
	}{
		{"plain", 100, 0, 1000, 100, true, 1000},
		{"in flight", 100, 0, 1000, 40, true, 940},
		{"no window", 100, 0, 60, 40, true, 0},
		{"shrunk below what is in flight", 1000, 0, 10, 0, true, 0},
		{"buffer gone", 1000, 0, 0, 1000, true, 0},
		{"runs backwards", 100, 60, 1000, 59, false, 0},
		{"beyond what was sent", 100, 60, 1000, 101, false, 0},
		{"far beyond", 100, 60, 1000, 1 << 31, false, 0},
		{"huge window", 0, 0, math.MaxUint32, 0, true, maxInFlight},
		{"huge window in use", maxInFlight, 0, math.MaxUint32, 0, true, 0},
		{"wrapped", 10, math.MaxUint32 - 9, 1000, 10, true, 1000},
		{"across the wrap", 10, math.MaxUint32 - 9, 1000, math.MaxUint32, true, 1000 - 11},
		{"backwards across the wrap", 10, 5, 1000, math.MaxUint32, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s sendHalf
			s.sent.Store(tt.sent)
			s.credit.Store(uint64(tt.seen))
			if ok := s.acknowledge(&header{bufAlloc: tt.alloc, fwdCnt: tt.fwd}); ok != tt.ok {
				t.Fatalf("acknowledge: %v, want %v", ok, tt.ok)
			}
			if got := s.window(); tt.ok && got != tt.window {
				t.Errorf("window %d, want %d", got, tt.window)
			}
		})
	}
}

func TestCreditViolationResets(t *testing.T) {
	for name, bad := range map[string]func(g *guest){
		"fwd_cnt": func(g *guest) {
			h := packet(opCreditUpdate, 1024, 5000)
			h.fwdCnt = 1
			g.send(h, nil)
		},
		"overrun": func(g *guest) {
			for range DefaultRecvBuffer/(64<<10) + 1 {
				g.send(packet(opData, 1024, 5000), make([]byte, 64<<10))
			}
		},
		"request again":  func(g *guest) { g.send(packet(opRequest, 1024, 5000), nil) },
		"response again": func(g *guest) { g.send(packet(opResponse, 1024, 5000), nil) },
		"unknown op":     func(g *guest) { g.send(packet(99, 1024, 5000), nil) },
		"op 0":           func(g *guest) { g.send(packet(0, 1024, 5000), nil) },
		"length beyond the chain": func(g *guest) {
			h := packet(opData, 1024, 5000)
			h.length = 101
			g.send(h, make([]byte, 100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, Config{}, 8)
			c := g.connect()
			bad(g)
			if h := g.expect(opReset); h.dstPort != 5000 {
				t.Errorf("reset of %d", h.dstPort)
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, ErrReset) {
				t.Errorf("read: %v", err)
			}
			g.d.CheckHealthy()
		})
	}
}

func TestWindowStopsAndProbes(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	l := g.listen(1024)
	h := packet(opRequest, 1024, 5000)
	h.bufAlloc = 1000
	g.send(h, nil)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g.expect(opResponse)
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, 1500))
		done <- err
	}()
	if h := g.expect(opData); h.length != 1000 {
		t.Errorf("first packet of %d bytes", h.length)
	}
	// Nothing comes from the guest, so the host asks.
	g.expect(opCreditRequest)
	// A smaller buffer gives nothing, and no loop of questions.
	h = packet(opCreditUpdate, 1024, 5000)
	h.bufAlloc, h.fwdCnt = 10, 100
	g.send(h, nil)
	h.bufAlloc, h.fwdCnt = 1000, 600
	g.send(h, nil)
	if h := g.recvOther(opCreditRequest); h.op != opData || h.length != 500 {
		t.Errorf("got %+v", h)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// recvOther skips packets of op.
func (g *guest) recvOther(op uint16) header {
	for {
		if h, _ := g.recv(); h.op != op {
			return h
		}
	}
}

func TestCreditUpdates(t *testing.T) {
	g := newGuest(t, Config{}, 16)
	c := g.connect()
	g.send(packet(opCreditRequest, 1024, 5000), nil)
	if h := g.expect(opCreditUpdate); h.bufAlloc != DefaultRecvBuffer || h.fwdCnt != 0 {
		t.Errorf("credit %+v", h)
	}
	// An update is sent when half of the buffer was read, not for each packet.
	buf := make([]byte, 16<<10)
	for range DefaultRecvBuffer / 2 / len(buf) {
		g.send(packet(opData, 1024, 5000), buf)
		if _, err := io.ReadFull(c, buf); err != nil {
			t.Fatal(err)
		}
	}
	if h := g.expect(opCreditUpdate); h.fwdCnt != DefaultRecvBuffer/2 {
		t.Errorf("credit %+v", h)
	}
	if n := g.dev.Stats().RxPackets; n != 3 {
		t.Errorf("%d packets to the guest, want 3", n)
	}
}

// CVE-2020-16843: packets that want answers, and no buffers for the answers.
func TestFloodWithoutReceiveBuffers(t *testing.T) {
	g := newGuest(t, Config{}, 0)
	q := g.d.Queues[queueTX]
	const flood = 4 * resetStall
	sent := 0
	for sent < flood {
		for q.Free() > 0 && sent < flood {
			q.Add([][]byte{wire(packet(opData, 1, uint32(sent)))}, nil)
			sent++
		}
		q.ForceKick()
		if g.dev.out.resetsQueued() >= resetStall {
			break // the device takes no more
		}
		q.MustUsed()
		for {
			if _, ok := q.TryUsed(); !ok {
				break
			}
		}
	}
	if sent == flood {
		t.Fatal("the device took the whole flood")
	}
	waitFor(t, func() bool { return g.dev.out.resetsQueued() == resetStall })
	for q.Free() > 0 {
		q.Add([][]byte{wire(packet(opData, 1, uint32(sent)))}, nil)
		sent++
	}
	q.ForceKick()
	// With buffers, every one is answered.
	g.giveBuffers(64, 64)
	for i := range sent {
		h := g.expect(opReset)
		if h.dstPort != uint32(i) {
			t.Fatalf("reset %d is for port %d", i, h.dstPort)
		}
	}
	if n := g.dev.out.resetsQueued(); n != 0 {
		t.Errorf("%d resets left", n)
	}
	g.d.CheckHealthy()
}

func (o *out) resetsQueued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.resetN
}

// The same packet again and again queues one answer.
func TestResetsAreMerged(t *testing.T) {
	g := newGuest(t, Config{}, 0)
	for range 100 {
		g.send(packet(opData, 1, 1), nil)
	}
	waitFor(t, func() bool { return g.dev.Stats().TxPackets == 100 })
	if n := g.dev.out.resetsQueued(); n != 1 {
		t.Errorf("%d resets queued, want 1", n)
	}
}

// A guest that connects and closes without taking answers hits the same bound.
func TestConnectFloodWithoutReceiveBuffers(t *testing.T) {
	g := newGuest(t, Config{MaxConns: 100, Backlog: 1000}, 0)
	g.listen(1024)
	q := g.d.Queues[queueTX]
	bye := packet(opShutdown, 1024, 0)
	bye.flags = shutBoth
	for port := uint32(0); g.dev.out.resetsQueued() < resetStall; {
		for q.Free() > 1 {
			port++
			q.Add([][]byte{wire(packet(opRequest, 1024, port))}, nil)
			bye.srcPort = port
			q.Add([][]byte{wire(bye)}, nil)
		}
		q.ForceKick()
		waitFor(t, func() bool {
			for {
				if _, ok := q.TryUsed(); !ok {
					break
				}
			}
			return q.Free() > 100 || g.dev.out.resetsQueued() >= resetStall
		})
	}
	g.dev.mu.Lock()
	defer g.dev.mu.Unlock()
	if g.dev.open > 100 {
		t.Errorf("%d connections", g.dev.open)
	}
}

// CVE-2019-18960: descriptors of any length, the header cut anywhere.
func TestDescriptorsOfAnyLength(t *testing.T) {
	payload := []byte("some bytes of payload")
	whole := append(wire(withLen(packet(opData, 1024, 5000), len(payload))), payload...)
	for _, opt := range []virtiotest.Options{{}, {NoIndirect: true}} {
		t.Run(fmt.Sprintf("indirect %v", !opt.NoIndirect), func(t *testing.T) {
			dev, err := New(Config{GuestCID: testCID})
			if err != nil {
				t.Fatal(err)
			}
			g := &guest{t: t, dev: dev, d: virtiotest.New(t, dev, opt)}
			g.giveBuffers(16, 4096)
			c := g.connect()
			buf := make([]byte, len(payload))
			for cut := range len(whole) + 1 {
				g.sendPieces(whole[:cut], nil, whole[cut:])
				if _, err := io.ReadFull(c, buf); err != nil || !bytes.Equal(buf, payload) {
					t.Fatalf("cut at %d: %q, %v", cut, buf, err)
				}
			}
			single := make([][]byte, len(whole))
			for i := range whole {
				single[i] = whole[i : i+1]
			}
			g.sendPieces(single...)
			if _, err := io.ReadFull(c, buf); err != nil || !bytes.Equal(buf, payload) {
				t.Fatalf("single bytes: %q, %v", buf, err)
			}
			// Chains that are too short for a header are taken and ignored.
			for _, n := range []int{0, 1, 43} {
				g.sendPieces(whole[:n])
			}
			waitFor(t, func() bool { return dev.Stats().Dropped == 3 })
			g.d.CheckHealthy()
		})
	}
}

func withLen(h header, n int) header {
	h.length = uint32(n)
	return h
}

// The receive buffers may be cut as badly.
func TestReceiveBuffersOfAnyLength(t *testing.T) {
	g := newGuest(t, Config{}, 1)
	rx := g.d.Queues[queueRX]
	l := g.listen(1024)
	g.send(packet(opRequest, 1024, 5000), nil)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	rx.MustUsed() // the answer took the only buffer
	rx.Add(nil, []int{0})
	rx.Add(nil, []int{1})
	rx.Add(nil, []int{43})
	rx.Add(nil, []int{44}) // a header and no data: of no use here
	rx.Add(nil, []int{1, 0, 42, 1, 3, 0, 1})
	rx.Add(nil, []int{4096})
	rx.Kick()
	if _, err := c.Write([]byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if u := rx.MustUsed(); u.Len != 0 {
			t.Errorf("buffer %d has %d bytes", i, u.Len)
		}
	}
	u := rx.MustUsed()
	if string(u.Data[headerSize:]) != "0123" {
		t.Errorf("got %q", u.Data)
	}
	u = rx.MustUsed()
	if string(u.Data[headerSize:]) != "456789" {
		t.Errorf("got %q", u.Data)
	}
}

func TestPacketsForNobody(t *testing.T) {
	edit := func(op uint16, f func(*header)) header {
		h := packet(op, 1024, 6000)
		if f != nil {
			f(&h)
		}
		return h
	}
	g := newGuest(t, Config{}, 16)
	g.listen(1024)
	answers := uint64(0)
	for _, tt := range []struct {
		name   string
		h      header
		answer bool
	}{
		{"source CID of another", edit(opRequest, func(h *header) { h.srcCID = 4 }), false},
		{"source CID of the host", edit(opRequest, func(h *header) { h.srcCID = HostCID }), false},
		{"high bits in the source CID", edit(opRequest, func(h *header) { h.srcCID |= 1 << 32 }), false},
		{"destination CID of another", edit(opRequest, func(h *header) { h.dstCID = 1 }), false},
		{"reset of nothing", edit(opReset, nil), false},
		{"seqpacket", edit(opRequest, func(h *header) { h.typ = 2 }), true},
		{"type 0", edit(opRequest, func(h *header) { h.typ = 0 }), true},
		{"data", edit(opData, nil), true},
		{"response", edit(opResponse, nil), true},
		{"shutdown", edit(opShutdown, nil), true},
		{"credit request", edit(opCreditRequest, nil), true},
		{"unknown op", edit(77, nil), true},
		{"port without listener", edit(opRequest, func(h *header) { h.dstPort = 1 }), true},
	} {
		before := g.dev.Stats().Dropped
		g.send(tt.h, nil)
		waitFor(t, func() bool { return g.dev.Stats().Dropped == before+1 })
		if tt.answer {
			h := g.expect(opReset)
			if h.typ != tt.h.typ || h.dstPort != 6000 {
				t.Errorf("%s: answer %+v", tt.name, h)
			}
			answers++
		}
	}
	if n := g.dev.Stats().RxPackets; n != answers {
		t.Errorf("%d packets to the guest, want %d", n, answers)
	}
	g.d.CheckHealthy()
}

// The credit given is bounded in sum; late connections get little.
func TestCreditBudget(t *testing.T) {
	g := newGuest(t, Config{MaxBuffered: 300 << 10, MaxConns: 3}, 16)
	g.listen(1024)
	for i, want := range []uint32{256 << 10, 16 << 10, 16 << 10} {
		g.send(packet(opRequest, 1024, uint32(i)), nil)
		if h := g.expect(opResponse); h.bufAlloc != want {
			t.Errorf("connection %d: credit %d, want %d", i, h.bufAlloc, want)
		}
	}
	g.send(packet(opRequest, 1024, 99), nil)
	g.expect(opReset)
}

// Connections that the guest ended count until their user closed them.
func TestEndedConnectionsCount(t *testing.T) {
	g := newGuest(t, Config{MaxConns: 1}, 16)
	c := g.connect()
	bye := packet(opShutdown, 1024, 5000)
	bye.flags = shutBoth
	g.send(packet(opData, 1024, 5000), []byte("last words"))
	g.send(bye, nil)
	g.expect(opReset)
	g.send(packet(opRequest, 1024, 5001), nil)
	g.expect(opReset)
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "last words" {
		t.Errorf("read %q, %v", got, err)
	}
	c.Close()
	g.send(packet(opRequest, 1024, 5001), nil)
	g.expect(opResponse)
}

func TestBrokenRingResetsConnections(t *testing.T) {
	for _, queue := range []int{queueRX, queueTX} {
		g := newGuest(t, Config{}, 4)
		c := g.connect()
		g.d.Queues[queue].PokeAvailIndex(0x8000)
		g.d.Queues[queue].ForceKick()
		go c.Write(make([]byte, 1<<20))
		waitFor(t, func() bool { return len(g.d.Failures()) > 0 })
		c.SetReadDeadline(time.Now().Add(virtiotest.Timeout))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrReset) {
			t.Errorf("queue %d: %v", queue, err)
		}
		g.d.CheckNoPanic()
	}
}

func TestRecvBuffer(t *testing.T) {
	var q recvBuffer
	var want []byte
	next := byte(0)
	const limit = 20_000
	for i := range 2000 {
		n := min((i*7919)%5000, limit-q.n)
		a, b := q.reserve(n, limit)
		for _, p := range [][]byte{a, b} {
			for j := range p {
				p[j] = next
				want = append(want, next)
				next++
			}
		}
		q.commit(n)
		p := make([]byte, (i*104729)%5000)
		m := q.read(p)
		if !bytes.Equal(p[:m], want[:m]) {
			t.Fatalf("step %d: content differs", i)
		}
		if want = want[m:]; len(want) != q.n {
			t.Fatalf("step %d: %d bytes, want %d", i, q.n, len(want))
		}
		if len(q.b) > limit {
			t.Fatalf("grew to %d", len(q.b))
		}
	}
}
