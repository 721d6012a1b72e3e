package net

import (
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// echo sends every frame back to the guest.
type echo struct{ dev *Device }

func (e *echo) Transmit(pair int, f *Frame) bool {
	if f.Len > MaxFrame || f.Len < ethHeader || f.Data.Len() != uint64(f.Len) {
		panic("frame of a bad length")
	}
	if h := &f.Header; h.NeedsChecksum && int(h.ChecksumStart)+int(h.ChecksumOffset)+2 > f.Len {
		panic("checksum outside the frame")
	}
	_ = e.dev.Receive(pair, &f.Header, f.Data)
	return true
}

func (e *echo) TransmitDone(pair int) { e.dev.Flush(pair) }
func (e *echo) ReceiveReady(pair int) {
	_ = e.dev.Receive(pair, &Header{}, [][]byte{make([]byte, 3000)})
}

// FuzzDevice plays a hostile guest on registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add(append([]byte{5, 0, 0, 0, 8, 5, 1, 40, 0, 0}, append(hdr(1, 1, 54, 1000, 34, 16), frameOf(60)...)...))
	f.Add(append([]byte{5, 1, 40, 0, 0}, append(hdr(0, 0, 0, 0, 0, 0), frameOf(60)...)...))
	f.Add([]byte{5, 4, 4, 1, 0, 4, 0, 2, 0, 12, 11, 0, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		e := &echo{}
		dev, err := New(Config{Backend: e, MAC: testMAC, Pairs: 2, QueueSize: 16})
		if err != nil {
			t.Fatal(err)
		}
		e.dev = dev
		virtiotest.Fuzz(t, dev, data)
	})
}

// FuzzHeader checks that what a header is parsed to keeps to the frame.
func FuzzHeader(f *testing.F) {
	f.Add(hdr(1, 1, 54, 1448, 34, 16), uint32(60000), ^uint64(0))
	f.Add(hdr(0, 0, 0, 0, 0, 0), uint32(60), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, n uint32, features uint64) {
		var raw, back [headerLen]byte
		copy(raw[:], b)
		var h Header
		if h.parse(&raw, uint64(n), features, 1500) != nil {
			return
		}
		if n < ethHeader || n > MaxFrame || h.GSO == GSONone && n > 1518 {
			t.Fatalf("a frame of %d bytes", n)
		}
		if h.NeedsChecksum && uint32(h.ChecksumStart)+uint32(h.ChecksumOffset)+2 > n {
			t.Fatal("checksum outside the frame")
		}
		h.put(&back, 1)
		var again Header
		if err := again.parse(&back, uint64(n), features, 1500); err != nil || again != h {
			t.Fatalf("%+v became %+v: %v", h, again, err)
		}
	})
}
