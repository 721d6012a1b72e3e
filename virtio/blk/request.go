package blk

import (
	"encoding/binary"

	"github.com/hutchvm/hutch/virtio/virtq"
)

// Request types and status bytes (5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK     = 0
	statusIOErr  = 1
	statusUnsupp = 2

	reqHeaderLen = 16 // type, reserved, sector
	rangeLen     = 16 // struct virtio_blk_discard_write_zeroes
	rangeUnmap   = 1  // its only flag
)

// request is one chain on its way. It is reused.
type request struct {
	q     *queue
	d     *Device
	next  *request // free list
	chain virtq.Chain

	typ     uint32
	off     int64 // bytes
	length  int64 // of data
	data    virtq.Buffers
	status  []byte // one byte of guest memory, empty if the driver gave none
	written uint32 // for the used ring
	ended   bool   // parse already answered it
	alone   bool   // no other request waited when it was taken
	onCPU   bool   // it is served on a vCPU's goroutine

	ranges  [maxRangeSegs]byteRange
	nRanges int
}

type byteRange struct {
	off, n int64
	unmap  bool
}

// parse reads the header and checks everything that can be checked. A request
// that cannot be served is answered here.
func (r *request) parse() {
	r.ended, r.written, r.data, r.status, r.nRanges = false, 0, nil, nil, 0
	c := &r.chain
	// The status is the last byte of the writable part, wherever that is cut.
	in := c.Writable
	if c.WritableLen > 0 {
		last := len(in) - 1
		b := in[last]
		r.status = b[len(b)-1:]
		if in[last] = b[:len(b)-1]; len(b) == 1 {
			in = in[:last] // an empty piece costs an iovec
		}
	}
	var h [reqHeaderLen]byte
	if c.Readable.CopyTo(h[:], 0) < reqHeaderLen || len(r.status) == 0 {
		r.refuse(errMalformed)
		return
	}
	r.typ = binary.LittleEndian.Uint32(h[0:])
	sector := binary.LittleEndian.Uint64(h[8:])
	outLen := c.ReadableLen - reqHeaderLen
	inLen := c.WritableLen - 1
	switch r.typ {
	case typeIn:
		r.setData(in, inLen, sector)
	case typeOut:
		if r.d.cfg.ReadOnly {
			r.refuse(errMalformed)
			return
		}
		r.setData(c.Readable.Skip(reqHeaderLen), outLen, sector)
	case typeFlush:
	case typeGetID:
		r.data = in
	case typeDiscard, typeWriteZeroes:
		if r.d.cfg.ReadOnly {
			r.refuse(errMalformed)
			return
		}
		r.parseRanges(c.Readable, outLen)
	default:
		r.refuse(errUnsupported)
	}
}

func (r *request) setData(data virtq.Buffers, n, sector uint64) {
	capacity := r.d.capacity.Load()
	if n%SectorSize != 0 || n > r.d.cfg.maxBytes() || sector > capacity || n/SectorSize > capacity-sector {
		r.refuse(errRange)
		return
	}
	r.data, r.length, r.off = data, int64(n), int64(sector)*SectorSize
}

// parseRanges checks all ranges before any is used.
func (r *request) parseRanges(from virtq.Buffers, n uint64) {
	if n == 0 || n%rangeLen != 0 || n/rangeLen > maxRangeSegs {
		r.refuse(errRange)
		return
	}
	capacity := r.d.capacity.Load()
	r.length = 0
	for i := range int(n / rangeLen) {
		var b [rangeLen]byte
		from.CopyTo(b[:], reqHeaderLen+uint64(i)*rangeLen)
		sector := binary.LittleEndian.Uint64(b[0:])
		count := uint64(binary.LittleEndian.Uint32(b[8:]))
		flags := binary.LittleEndian.Uint32(b[12:])
		// 5.2.6.2: unknown flags, and unmap in a discard, are unsupported.
		if flags&^rangeUnmap != 0 || r.typ == typeDiscard && flags != 0 {
			r.refuse(errUnsupported)
			return
		}
		if count > maxRangeLen || sector > capacity || count > capacity-sector {
			r.refuse(errRange)
			return
		}
		r.ranges[i] = byteRange{int64(sector) * SectorSize, int64(count) * SectorSize, flags&rangeUnmap != 0}
		r.length += r.ranges[i].n
	}
	r.nRanges = int(n / rangeLen)
	r.off = r.ranges[0].off
}

// refuse answers a request that the guest got wrong.
func (r *request) refuse(err error) {
	r.d.stats.refused.Add(1)
	if err == errUnsupported {
		r.finish(statusUnsupp, 0)
		return
	}
	r.finish(statusIOErr, 0)
}

// finish writes the status byte; n bytes of data were written before it.
func (r *request) finish(status byte, n int64) {
	r.ended = true
	if len(r.status) == 1 {
		r.status[0] = status
		r.written = uint32(min(n+1, 1<<32-1))
	}
}

// tryNow serves the request on the calling goroutine if that needs no waiting,
// and reports whether it is done. What was done of it is not done again by run.
func (r *request) tryNow() bool {
	if r.ended {
		return true
	}
	switch r.typ {
	case typeGetID:
		r.run()
		return true
	case typeIn, typeOut:
	default:
		return false
	}
	if r.typ == typeOut && !r.d.writeback.Load() {
		return false // ends with a flush
	}
	if r.onCPU && !oneCPU && r.length > paceOnCPU {
		return false
	}
	for r.d.nowait != nil {
		r.data = dropEmpty(r.data)
		if len(r.data) == 0 {
			r.finishIO(nil)
			return true
		}
		var n int
		var err error
		if r.typ == typeIn {
			n, err = r.d.nowait.ReadNowait(r.data, r.off)
		} else {
			n, err = r.d.nowait.WriteNowait(r.data, r.off)
		}
		r.data, r.off = advance(r.data, n), r.off+int64(n)
		switch {
		case err == ErrNoNowait:
			return r.tryPaced()
		case err == ErrWouldBlock && r.alone:
			return r.tryPaced() // nobody else would gain by a worker
		case err == ErrWouldBlock, err == nil && n == 0: // 0 is the end of the file
			return false
		case err != nil:
			r.finishIO(err)
			return true
		}
	}
	return r.tryPaced()
}

// tryPaced takes the chance that the backend is fast, if it was lately.
func (r *request) tryPaced() bool {
	began, inline := r.d.pace.begin(r)
	if !inline {
		return false
	}
	r.run()
	r.d.pace.end(began, r.length)
	return true
}

// run serves the request and may wait for the backend.
func (r *request) run() {
	b := r.d.cfg.Backend
	switch r.typ {
	case typeIn:
		r.finishIO(b.ReadAtv(r.data, r.off))
	case typeOut:
		err := b.WriteAtv(r.data, r.off)
		if err == nil && !r.d.writeback.Load() {
			err = b.Flush()
		}
		r.finishIO(err)
	case typeFlush:
		r.finishFlush(b.Flush())
	case typeGetID:
		var id [serialLen]byte // NUL-padded, no terminator when it is full
		copy(id[:], r.d.cfg.Serial)
		r.finish(statusOK, int64(r.data.CopyFrom(id[:], 0)))
	case typeDiscard, typeWriteZeroes:
		r.finishRanges(r.runRanges(b))
	}
}

func (r *request) runRanges(b Backend) error {
	for _, e := range r.ranges[:r.nRanges] {
		var err error
		switch {
		case e.n == 0:
		case r.typ == typeDiscard:
			err = b.Discard(e.off, e.n)
		default:
			err = b.WriteZeroes(e.off, e.n, e.unmap)
		}
		if err != nil {
			return err
		}
	}
	if r.typ == typeWriteZeroes && !r.d.writeback.Load() {
		return b.Flush()
	}
	return nil
}

func (r *request) finishIO(err error) {
	s := &r.d.stats
	if r.typ == typeIn {
		if err != nil {
			r.failed("read", err)
			return
		}
		s.readOps.Add(1)
		s.readBytes.Add(uint64(r.length))
		r.finish(statusOK, r.length)
		return
	}
	if err != nil {
		r.failed("write", err)
		return
	}
	s.writeOps.Add(1)
	s.writeBytes.Add(uint64(r.length))
	r.finish(statusOK, 0)
}

func (r *request) finishFlush(err error) {
	r.off, r.length = 0, 0
	if err != nil {
		r.failed("flush", err)
		return
	}
	r.d.stats.flushOps.Add(1)
	r.finish(statusOK, 0)
}

func (r *request) finishRanges(err error) {
	s := &r.d.stats
	switch {
	case err != nil && r.typ == typeDiscard:
		r.failed("discard", err)
	case err != nil:
		r.failed("write zeroes", err)
	case r.typ == typeDiscard:
		s.discardOps.Add(1)
		s.discardBytes.Add(uint64(r.length))
		r.finish(statusOK, 0)
	default:
		s.zeroOps.Add(1)
		s.zeroBytes.Add(uint64(r.length))
		r.finish(statusOK, 0)
	}
}

// failed reports that the backend failed.
func (r *request) failed(op string, err error) {
	r.finish(statusIOErr, 0)
	r.d.report(&OpError{Op: op, Off: r.off, Len: r.length, Err: err})
}
