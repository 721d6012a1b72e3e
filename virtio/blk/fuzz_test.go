package blk

import (
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// FuzzDevice plays a hostile guest on registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add(append([]byte{5, 0, 16, 1, 2}, reqHeader(typeIn, 0)...))
	f.Add(append([]byte{5, 0, 32, 1, 0}, append(reqHeader(typeDiscard, 0), rangeBytes(0, 8, 0)...)...))
	f.Add([]byte{8, 0, 0xff, 0xff, 11, 0, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		dev, err := New(Config{Backend: NewMemory(make([]byte, 64<<10)), Queues: 2, QueueSize: 16, Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		virtiotest.Fuzz(t, dev, data)
	})
}

// FuzzRequest sends one request with any content, cut into descriptors anywhere,
// and checks that the bytes around the disk's range stay as they are.
func FuzzRequest(f *testing.F) {
	f.Add(append(reqHeader(typeOut, 1), make([]byte, 512)...), uint16(16), uint16(0))
	f.Add(reqHeader(typeIn, 7), uint16(3), uint16(512))
	f.Add(append(reqHeader(typeWriteZeroes, 0), rangeBytes(1, 2, 1)...), uint16(20), uint16(0))
	f.Add(reqHeader(typeGetID, 0), uint16(16), uint16(20))
	f.Fuzz(func(t *testing.T, req []byte, cut, in uint16) {
		if len(req) > 8192 {
			return
		}
		const guard = 512
		all := make([]byte, guard+4096+guard)
		for i := range all {
			all[i] = 0xaa
		}
		g := newGuest(t, Config{Backend: NewMemory(all[guard : guard+4096])})
		at := int(cut) % (len(req) + 1)
		g.d.Queues[0].Do([][]byte{req[:at], req[at:]}, int(in), 1)
		for i := range guard {
			if all[i] != 0xaa || all[guard+4096+i] != 0xaa {
				t.Fatal("wrote outside the disk")
			}
		}
		g.d.CheckHealthy()
	})
}
