package virtq

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// FuzzQueue gives a queue memory that is nothing but fuzz: rings, tables and
// buffers. Whatever it parses must lie in that memory and within the bounds.
func FuzzQueue(f *testing.F) {
	good := newRing(f, 16)
	good.put(descAt, ptr(tableAt, 32, indirect, 0), ptr(bufferAt, 8, next, 2), ptr(bufferAt, 8, write, 0))
	good.put(tableAt, ptr(bufferAt, 9, next, 1), ptr(bufferAt, 9, write, 0))
	good.avail(0)
	good.avail(1)
	all, err := good.mem.Slice(memBase, memSize)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(16), uint16(0), uint16(0x1000), uint16(0x2000), byte(3), bytes.TrimRight(all, "\x00"))
	f.Add(uint16(0), uint16(0), uint16(0), uint16(0), byte(0), []byte{})
	f.Add(uint16(1), uint16(16), uint16(6), uint16(8), byte(1), binary.LittleEndian.AppendUint64(nil, 1<<40|1))

	f.Fuzz(func(t *testing.T, size, desc, avail, used uint16, flags byte, data []byte) {
		buf := make([]byte, memSize)
		copy(buf, data)
		mem, err := guestmem.FromBytes(memBase, buf)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{
			Size: size, MaxSize: 256, EventIdx: flags&1 != 0, Indirect: flags&2 != 0,
			Desc: memBase + uint64(desc), Driver: memBase + uint64(avail), Device: memBase + uint64(used),
		}
		q, err := New(mem, cfg)
		if err != nil {
			return
		}
		var c Chain
		var st State
		for range 2 * int(size) {
			q.DisableNotify()
			ok, err := q.Next(&c)
			if err != nil {
				if ok, again := q.Next(&c); ok || again == nil {
					t.Fatal("a broken queue works again")
				}
				break
			}
			if !ok {
				if q.EnableNotify() {
					continue
				}
				break
			}
			if n := len(c.Readable) + len(c.Writable); n > int(size) {
				t.Fatalf("chain of %d in a queue of %d", n, size)
			}
			if c.Readable.Len() != c.ReadableLen || c.Writable.Len() != c.WritableLen || c.ReadableLen+c.WritableLen > 1<<32 {
				t.Fatalf("lengths %d, %d", c.ReadableLen, c.WritableLen)
			}
			for _, b := range append(append(Buffers{}, c.Readable...), c.Writable...) {
				if gpa, ok := mem.Address(b); !ok || gpa < memBase || len(b) == 0 {
					t.Fatal("a buffer outside memory")
				}
			}
			// A device that writes into its own rings, because it is told to.
			for _, b := range c.Writable {
				for i := range b[:min(len(b), 64)] {
					b[i] ^= flags
				}
			}
			if flags&4 == 0 {
				q.Push(c.Head, uint32(c.WritableLen))
				q.ShouldNotify()
			}
			if q.InFlight() > int(size) {
				t.Fatalf("%d chains in flight in a queue of %d", q.InFlight(), size)
			}
			st = q.State()
		}
		q2, err := New(mem, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := q2.Restore(st); err != nil {
			t.Fatalf("restore of %+v: %v", st, err)
		}
	})
}
