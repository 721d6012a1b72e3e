package virtiotest

import (
	"encoding/binary"
	"testing"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

// fuzzMem is small, so that random addresses hit something.
const fuzzMem = 1 << 20

// Fuzz lets data play a hostile guest against dev: each few bytes are a register
// access, an access to the configuration space, a write into rings, tables or
// buffers, a kick, a chain, a reset, a pause or a save. The device runs all the
// while, in memory that the race detector does not watch, as real guest memory
// is. It fails the test when the device panics and returns when the transport is
// closed.
func Fuzz(t *testing.T, dev virtio.Device, data []byte) {
	t.Helper()
	mem, err := guestmem.Allocate(guestmem.Range{GPA: MemBase, Size: fuzzMem})
	if err != nil {
		t.Fatal(err)
	}
	f := fuzzer{Driver: New(t, dev, Options{Mem: mem}), data: data}
	for len(f.data) > 0 {
		f.step()
	}
	f.T.Pause()
	f.T.Resume()
	f.Reset()
	f.CheckNoPanic()
	if err := f.T.Close(); err != nil {
		t.Error(err)
	}
	if err := mem.Close(); err != nil {
		t.Error(err)
	}
}

type fuzzer struct {
	*Driver
	data []byte
}

func (f *fuzzer) byte() byte {
	if len(f.data) == 0 {
		return 0
	}
	b := f.data[0]
	f.data = f.data[1:]
	return b
}

func (f *fuzzer) u16() uint16 { return uint16(f.byte()) | uint16(f.byte())<<8 }
func (f *fuzzer) u32() uint32 { return uint32(f.u16()) | uint32(f.u16())<<16 }

// queue picks one of the queues, if there are any.
func (f *fuzzer) queue() *Queue {
	b := int(f.byte())
	if len(f.Queues) == 0 {
		return nil
	}
	return f.Queues[b%len(f.Queues)]
}

// addr is mostly guest memory.
func (f *fuzzer) addr() uint64 {
	v := f.u32()
	if v>>24 == 0xff {
		return uint64(v) << 32
	}
	return MemBase + uint64(v%(fuzzMem+64))
}

// desc is mostly valid.
func (f *fuzzer) desc() Desc {
	return Desc{Addr: f.addr(), Len: uint32(f.u16()), Flags: uint16(f.byte() & 7), Next: uint16(f.byte())}
}

func (f *fuzzer) step() {
	switch f.byte() % 14 {
	case 0:
		f.Write32(uint64(f.byte())*4, f.u32())
	case 1:
		f.Read32(uint64(f.byte()) * 4)
	case 2:
		n := 1 << (f.byte() % 4)
		f.SetConfig(uint64(f.byte()), n, uint64(f.u32())<<32|uint64(f.u32()))
	case 3:
		f.Config(uint64(f.byte()), 1<<(f.byte()%4))
	case 4: // any access at all
		p := make([]byte, f.byte()%17)
		off := uint64(f.u16())
		f.T.Write(off, p)
		f.T.Read(off, p)
	case 5: // a chain as it should be
		q := f.queue()
		n := int(f.byte() % 80)
		w := int(f.u16() % 5000)
		if q == nil || q.Free() < 2 || len(f.alloc.free) > 500 {
			return
		}
		n = min(n, len(f.data))
		body := f.data[:n]
		f.data = f.data[n:]
		q.Add([][]byte{body}, []int{w})
		q.Kick()
	case 6: // a chain as it should not be
		if q := f.queue(); q != nil {
			head := f.u16() % q.Size
			q.PokeDesc(head, f.desc())
			q.PokeAvail(head)
			q.ForceKick()
		}
	case 7: // a descriptor under the device's hands
		if q := f.queue(); q != nil {
			q.PokeDesc(f.u16()%q.Size, f.desc())
		}
	case 8:
		if q := f.queue(); q != nil {
			q.PokeAvailIndex(f.u16())
			q.ForceKick()
		}
	case 9: // anywhere
		at := uint64(f.u32()) % (fuzzMem - 8)
		b := binary.LittleEndian.AppendUint32(nil, f.u32())
		_, _ = f.Mem.WriteAt(b, int64(MemBase+at))
	case 10:
		f.Write32(virtio.RegQueueNotify, f.u32()%8)
	case 11: // a new life
		f.Reset()
		if f.Negotiate(f.Offered() &^ uint64(f.u32())) {
			f.SetupQueues()
			f.DriverOK()
		}
	case 12:
		f.T.Pause()
		_, _ = f.T.Save()
		f.T.Resume()
	case 13: // take what is done, as a driver would
		if q := f.queue(); q != nil {
			f.drain(q)
		}
	}
}

// drain takes used buffers without believing them: the rings may be garbage by
// the fuzzer's own doing.
func (f *fuzzer) drain(q *Queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lastUsed = q.load16(q.UsedAddr + 2)
	for head, r := range q.pending {
		q.D.mu.Lock()
		for _, p := range r.pieces {
			q.D.alloc.put(p.gpa, p.n)
		}
		q.D.mu.Unlock()
		q.free = append(q.free, r.descs...)
		delete(q.pending, head)
	}
}
