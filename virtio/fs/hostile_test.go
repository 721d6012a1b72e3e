package fs

import (
	"bytes"
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// Chains of any shape are served or given back; none ends the device.
func TestAnyShape(t *testing.T) {
	for _, opt := range []virtiotest.Options{{}, {NoIndirect: true}} {
		dev, h := newDevice(t, Config{})
		d := virtiotest.New(t, dev, opt)
		q := d.Queues[1]
		req := reqBytes(opLookup, "name\x00")
		for n := range len(req) {
			u := q.Do([][]byte{nil, req[:n], {}}, 0, 5, 0, 100, 0)
			want := n
			if n < minRequest {
				want = 0
			}
			if int(u.Len) != want || !bytes.Equal(u.Data[:u.Len], req[:want]) {
				t.Fatalf("request of %d bytes: %d bytes", n, u.Len)
			}
		}
		served := h.served.Load()
		// Nothing readable, nothing writable, nothing at all.
		if u := q.Do(nil, 100); u.Len != 0 {
			t.Errorf("no request: %d bytes", u.Len)
		}
		if u := q.Do([][]byte{nil}, 0); u.Len != 0 {
			t.Errorf("empty request: %d bytes", u.Len)
		}
		if h.served.Load() != served {
			t.Error("the handler saw a request that was none")
		}
		if u := q.Do([][]byte{req}); u.Len != 0 {
			t.Errorf("no room: %d bytes", u.Len)
		}
		ones := make([][]byte, 0, len(req))
		for i := range req {
			ones = append(ones, req[i:i+1])
		}
		if u := q.Do(ones, 1, 1, 1, 1, 40, 100); int(u.Len) != len(req) {
			t.Errorf("in single bytes: %d bytes", u.Len)
		}
		// A FORGET with room for a reply, and a request on the wrong queue.
		d.Queues[hiprio].Do([][]byte{reqBytes(opForget, "12345678")}, 100)
		d.Queues[hiprio].Do([][]byte{reqBytes(opFsync, "")}, 100)
		d.Queues[hiprio].Do([][]byte{{1}})
		q.Do([][]byte{reqBytes(opForget, "12345678")})
		if dev.Stats().Malformed == 0 {
			t.Error("nothing counted as malformed")
		}
		d.CheckHealthy()
	}
}

// A reply longer than the chain is cut in the used ring too.
type boaster struct{ echo }

func (b *boaster) Serve(in, out [][]byte) int { return 1 << 40 }

func TestUsedLength(t *testing.T) {
	dev, _ := newDevice(t, Config{Handler: &boaster{}})
	d := virtiotest.New(t, dev)
	if u := d.Queues[1].Do([][]byte{reqBytes(opRead, "")}, 100); u.Len != 100 {
		t.Errorf("used length %d, want 100", u.Len)
	}
}

// A handler that panics ends this device, and nothing else.
type panicker struct{ echo }

func (p *panicker) Serve(in, out [][]byte) int { panic("bug") }

func TestPanic(t *testing.T) {
	for _, op := range []uint32{opLookup, opFsync} {
		dev, _ := newDevice(t, Config{Handler: &panicker{}})
		d := virtiotest.New(t, dev)
		d.Queues[1].Add([][]byte{reqBytes(op, "")}, []int{100})
		d.Queues[1].Kick()
		waitUntil(t, func() bool { return len(d.Failures()) > 0 })
	}
}

// FuzzDevice plays a hostile guest on registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add(append([]byte{5, 1, 45, 1, 2}, reqBytes(opLookup, "name\x00")...))
	f.Add(append([]byte{5, 0, 48, 1, 0}, reqBytes(opForget, "12345678")...))
	f.Add([]byte{8, 0, 0xff, 0xff, 11, 0, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		dev, _ := newDevice(t, Config{Queues: 2, QueueSize: 16, Workers: 2})
		virtiotest.Fuzz(t, dev, data)
	})
}
