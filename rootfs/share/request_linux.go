package share

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// FUSE operations that are passed on (linux/fuse.h). All others are answered with
// ENOSYS, after which a kernel does without.
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opStatfs        = 17
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opInit          = 26
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opFsyncdir      = 30
	opCreate        = 35
	opInterrupt     = 36
	opDestroy       = 38
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opLseek         = 46
	opCopyFileRange = 47
)

const (
	headerLen    = 40 // struct fuse_in_header
	outHeaderLen = 16 // struct fuse_out_header
	writeLen     = headerLen + 40
	maxSmall     = 128 << 10 // of a request that carries no file data

	fuseMajor = 7
	minMinor  = 27 // Linux 4.18; older ones do not have virtio-fs
)

// opArgs is the length of the structure that follows the header.
var opArgs = map[uint32]int{
	opLookup: 0, opForget: 8, opGetattr: 16, opSetattr: 88, opReadlink: 0, opSymlink: 0, opMknod: 16, opMkdir: 8,
	opUnlink: 0, opRmdir: 0, opRename: 8, opLink: 8, opOpen: 8, opRead: 40, opWrite: 40, opStatfs: 0, opRelease: 24,
	opFsync: 16, opSetxattr: 8, opGetxattr: 8, opListxattr: 8, opRemovexattr: 0, opInit: 16, opOpendir: 8,
	opReaddir: 40, opReleasedir: 24, opFsyncdir: 16, opCreate: 16, opInterrupt: 8, opDestroy: 0, opBatchForget: 8,
	opFallocate: 32, opReaddirplus: 40, opRename2: 16, opLseek: 24, opCopyFileRange: 56,
}

// sizeField is where a request says how much room its answer has.
var sizeField = map[uint32]int{
	opRead: headerLen + 16, opReaddir: headerLen + 16, opReaddirplus: headerLen + 16, opGetxattr: headerLen, opListxattr: headerLen,
}

// noReply are the operations that are never answered.
func noReply(op uint32) bool { return op == opForget || op == opBatchForget }

// small holds copies of requests.
var small = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// Serve answers one request; see virtio/fs.Handler. Everything but file data is
// copied before it is looked at, so that the guest cannot change what was checked.
func (s *Server) Serve(in, out [][]byte) int {
	total := length(in)
	buf := small.Get().(*[]byte)
	defer small.Put(buf)
	var h [writeLen]byte
	n := copyOut(h[:], in)
	if n < headerLen {
		return 0
	}
	op := binary.LittleEndian.Uint32(h[4:])
	unique := binary.LittleEndian.Uint64(h[8:])
	if err := check(op, h[:n], total, length(out)); err != 0 {
		if noReply(op) {
			return 0
		}
		return replyError(out, unique, err)
	}
	if op == opWrite {
		// The header apart, the data in place.
		*buf = append((*buf)[:0], h[:writeLen]...)
		in = append([][]byte{*buf}, skip(in, writeLen)...)
	} else {
		*buf = grow(*buf, total)
		*buf = (*buf)[:copyOut(*buf, in)]
		// The copy of the header is the one that was checked.
		copy(*buf, h[:n])
		in = [][]byte{*buf}
	}
	switch op {
	case opInit:
		return s.begin(in, out, unique)
	case opDestroy:
		s.Reset()
		return replyError(out, unique, 0)
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if !s.started {
		return replyError(out, unique, unix.EIO)
	}
	n, status := s.proto.HandleRequest(in, out)
	if !status.Ok() {
		return replyError(out, unique, unix.Errno(status))
	}
	return n
}

// begin answers INIT, with which a session begins.
func (s *Server) begin(in, out [][]byte, unique uint64) int {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.started {
		return replyError(out, unique, unix.EINVAL)
	}
	n, status := s.proto.HandleRequest(in, out)
	if !status.Ok() {
		return replyError(out, unique, unix.Errno(status))
	}
	s.started = true
	return n
}

// check refuses what the protocol layer need not see. h is the copied beginning
// of a request of total bytes.
func check(op uint32, h []byte, total, room int) unix.Errno {
	args, known := opArgs[op]
	le := binary.LittleEndian
	switch {
	case !known:
		return unix.ENOSYS
	case total < headerLen+args,
		op == opWrite && total > writeLen+MaxRequestBytes,
		op != opWrite && total > maxSmall,
		int64(le.Uint32(h)) != int64(total),
		le.Uint16(h[36:]) != 0, // extensions, which were not agreed on
		!noReply(op) && room < outHeaderLen:
		return unix.EINVAL
	case le.Uint64(h[16:]) == ^uint64(0): // means something to the protocol layer
		return unix.ESTALE
	}
	if at, ok := sizeField[op]; ok && le.Uint32(h[at:]) > MaxRequestBytes {
		return unix.EINVAL
	}
	if op == opWrite && int64(le.Uint32(h[headerLen+16:])) != int64(total-writeLen) {
		return unix.EINVAL
	}
	if op == opInit && (le.Uint32(h[headerLen:]) != fuseMajor || le.Uint32(h[headerLen+4:]) < minMinor) {
		return unix.EPROTO
	}
	return 0
}

// replyError writes a reply without content.
func replyError(out [][]byte, unique uint64, err unix.Errno) int {
	var h [outHeaderLen]byte
	binary.LittleEndian.PutUint32(h[0:], outHeaderLen)
	binary.LittleEndian.PutUint32(h[4:], uint32(-int32(err)))
	binary.LittleEndian.PutUint64(h[8:], unique)
	if length(out) < outHeaderLen {
		return 0
	}
	rest := h[:]
	for _, p := range out {
		rest = rest[copy(p, rest):]
	}
	return outHeaderLen
}

func length(iov [][]byte) int {
	n := 0
	for _, p := range iov {
		n += len(p)
	}
	return n
}

// copyOut fills p from the beginning of iov.
func copyOut(p []byte, iov [][]byte) int {
	n := 0
	for _, b := range iov {
		if n == len(p) {
			break
		}
		n += copy(p[n:], b)
	}
	return n
}

// skip drops the first n bytes, in place.
func skip(iov [][]byte, n int) [][]byte {
	for len(iov) > 0 && n >= len(iov[0]) {
		n -= len(iov[0])
		iov = iov[1:]
	}
	if n > 0 && len(iov) > 0 {
		iov[0] = iov[0][n:]
	}
	return iov
}

func grow(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return make([]byte, n)
}
