package guest

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// drainGrace is how long the exit of a command is held back, after all that it
// wrote has been sent, for others that still hold its stdout or stderr open: in
// "a | b" it is not always the shell's last child that writes last.
const drainGrace = 50 * time.Millisecond

// pipeSize is the buffer of a command's pipes. Linux's own 64 KiB make a
// writer and the agent take turns for every frame.
const pipeSize = 256 << 10

// frame is a buffer of one data frame.
type frame [proto.FrameHeaderSize + proto.MaxData]byte

// frames keeps buffers. A stream holds one only while it has data, so that a
// thousand idle commands cost nothing.
var frames = sync.Pool{New: func() any { return new(frame) }}

// output carries one of a command's output streams to the host. It ends when
// the last writer has closed the stream, or, told by leaderExited, when what
// the leader wrote has been sent. In that case the stream stays open and what
// comes later is thrown away, so that a background process which goes on
// printing is not killed by it.
type output struct {
	file *os.File
	raw  syscall.RawConn
	kind proto.Type
	send func(*frame, int) // the header is set
	tty  bool
	// grace is how long others may add to the output of a leader that ended.
	grace time.Duration

	done chan struct{} // closed when the stream's end, as the host sees it, is reached

	buf *frame // held while there is data
	n   int
	err error
}

func newOutput(file *os.File, kind proto.Type, tty bool, grace time.Duration, send func(*frame, int)) (*output, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &output{file: file, raw: raw, kind: kind, tty: tty, grace: grace, send: send, done: make(chan struct{})}, nil
}

// leaderExited tells the stream that the command itself has ended.
func (o *output) leaderExited() {
	o.file.SetReadDeadline(time.Unix(1, 0)) // wakes run, also when it is about to read
}

// run carries the stream until its end.
func (o *output) run() {
	attempt := func(fd uintptr) bool { return o.attempt(int(fd)) }
	err := o.copy(attempt)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		o.drain()
		o.file.SetReadDeadline(time.Now().Add(o.grace))
		err = o.copy(attempt)
	}
	close(o.done)
	if errors.Is(err, os.ErrDeadlineExceeded) && !o.tty {
		o.file.SetReadDeadline(time.Time{})
		o.send = func(*frame, int) {}
		o.copy(attempt)
	}
	o.file.Close() // hangs a terminal up
}

// copy sends what can be read until an error or the end.
func (o *output) copy(attempt func(uintptr) bool) error {
	for {
		o.n, o.err = 0, nil
		if err := o.raw.Read(attempt); err != nil {
			return err
		}
		if o.err != nil {
			return o.err
		}
		o.forward()
	}
}

// attempt reads once, and reports false when there is nothing to read yet.
func (o *output) attempt(fd int) bool {
	o.read(fd, proto.MaxData)
	return o.err != unix.EAGAIN
}

func (o *output) read(fd, limit int) {
	if o.buf == nil {
		o.buf = frames.Get().(*frame)
	}
	for {
		o.n, o.err = unix.Read(fd, o.buf[proto.FrameHeaderSize:][:limit])
		if o.err != unix.EINTR {
			break
		}
	}
	if o.err == nil && o.n == 0 || o.tty && o.err == unix.EIO {
		o.err = io.EOF
	}
	if o.err != nil {
		frames.Put(o.buf)
		o.buf, o.n = nil, 0
	}
}

func (o *output) forward() {
	proto.PutHeader(o.buf[:], o.kind, o.n)
	o.send(o.buf, o.n)
	frames.Put(o.buf)
	o.buf = nil
}

// drain sends what is in the stream now, which includes all that the leader
// has written, and no more: others may write without end.
func (o *output) drain() {
	left := 0
	o.raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	for left > 0 {
		o.raw.Control(func(fd uintptr) { o.read(int(fd), min(left, proto.MaxData)) })
		if o.err != nil {
			return
		}
		left -= o.n
		o.forward()
	}
}
