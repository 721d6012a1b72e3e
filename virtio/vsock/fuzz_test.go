package vsock

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// FuzzDevice plays a hostile guest on registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0x00, 0x10, 5, 1, 44, 0, 0})
	f.Add([]byte{8, 1, 0xff, 0xff, 11, 0, 0, 0, 0, 12})
	f.Add(append([]byte{5, 1, 44, 0, 0}, wire(packet(opRequest, 1024, 7))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		dev, err := New(Config{GuestCID: testCID, MaxConns: 16})
		if err != nil {
			t.Fatal(err)
		}
		l, err := dev.Listen(1024)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			echoAll(l)
		}()
		virtiotest.Fuzz(t, dev, data) // closes the device
		<-done
	})
}

// echoAll serves every connection until the listener is closed.
func echoAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(c, c)
			c.Close()
		}()
	}
}

// FuzzPackets sends well-formed chains whose packets are anything: 14 bytes choose
// a packet's fields, mostly near what is valid.
func FuzzPackets(f *testing.F) {
	f.Add([]byte{opRequest, 0, 1, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0})
	f.Add([]byte{
		opRequest, 0, 1, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0,
		opData, 0, 1, 0, 0, 50, 0, 0, 16, 0, 0, 0, 0, 0,
		opShutdown, 0, 1, 3, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0,
	})
	f.Add([]byte{
		opRequest, 0, 1, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0,
		opCreditUpdate, 0, 1, 0, 0, 0, 0, 0, 16, 0, 0, 255, 255, 255,
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		g := newGuest(t, Config{MaxConns: 8, RecvBuffer: 1 << 12}, 0)
		l := g.listen(1024)
		done := make(chan struct{})
		go func() {
			defer close(done)
			echoAll(l)
		}()
		const size = 14
		for i := 0; len(data) >= size && i < 200; i++ {
			b := data[:size]
			data = data[size:]
			h := packet(uint16(b[0]), 1024+uint32(b[1]>>6), uint32(b[2]))
			h.flags = uint32(b[3])
			h.typ += uint16(b[4] >> 6)
			h.length = uint32(b[5])*uint32(b[6]+1) + uint32(b[7]>>7)<<31
			h.bufAlloc = uint32(b[8]) << (b[9] % 32)
			h.fwdCnt = uint32(int32(int8(b[10]))) + uint32(b[11])<<8 + uint32(b[12])<<24
			if q := g.d.Queues[queueTX]; q.Free() < 4 {
				q.MustUsed()
			}
			g.send(h, make([]byte, int(b[5])+int(b[13])))
			if b[4]&1 != 0 {
				g.giveOne()
			}
		}
		g.dev.mu.Lock()
		if g.dev.open > 8 || g.dev.promised > 8<<14 {
			t.Errorf("open %d, promised %d", g.dev.open, g.dev.promised)
		}
		g.dev.mu.Unlock()
		g.d.CheckHealthy()
		if err := g.dev.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		<-done
	})
}

// giveOne takes what was received and gives one receive buffer.
func (g *guest) giveOne() {
	q := g.d.Queues[queueRX]
	for {
		if _, ok := q.TryUsed(); !ok {
			break
		}
	}
	if q.Free() > 0 {
		g.giveBuffers(1, 128)
	}
}
