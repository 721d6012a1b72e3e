package client

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"syscall"

	"github.com/hutchvm/hutch/agent/proto"
)

// Stdin is the writing end of a command's stdin. One goroutine may use it,
// while others use the Process.
//
// A write returns when the bytes are on their way and waits while more than
// [proto.StdinWindow] of them have not been taken by the command. Signals and
// the like are not held up by that.
type Stdin struct{ p *Process }

// linuxEPIPE is the number with which the agent reports that the command has
// closed its stdin.
const linuxEPIPE = 32

// Stdin returns the command's stdin. Without [proto.Exec.Stdin] every write to
// it fails with ErrNoStdin.
func (p *Process) Stdin() *Stdin { return &Stdin{p} }

func stdinError(errno uint32) error {
	if errno == linuxEPIPE {
		return syscall.EPIPE
	}
	return errors.New("guest error " + strconv.FormatUint(uint64(errno), 10))
}

// frames keeps buffers of one data frame each.
var frames = sync.Pool{New: func() any { return new([proto.FrameHeaderSize + proto.MaxData]byte) }}

// reserve waits until at least one byte may be sent and takes up to n of what
// may be.
func (s *Stdin) reserve(n int) (int, error) {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.stdin != nil:
			return 0, p.stdin
		case p.err == io.EOF: // it has ended, so nobody reads the pipe
			return 0, syscall.EPIPE
		case p.err != nil:
			return 0, p.err
		case p.credit > 0:
			n = min(n, p.credit, proto.MaxData)
			p.credit -= n
			return n, nil
		case p.reading || p.pending.Kind != 0:
			p.changed.Wait()
		default:
			p.step()
		}
	}
}

func (s *Stdin) release(n int) {
	s.p.mu.Lock()
	s.p.credit += n
	s.p.mu.Unlock()
}

// Write sends b. When the command has closed its stdin or has ended, the error
// is [syscall.EPIPE].
func (s *Stdin) Write(b []byte) (int, error) {
	buf := frames.Get().(*[proto.FrameHeaderSize + proto.MaxData]byte)
	defer frames.Put(buf)
	done := 0
	for done < len(b) {
		n, err := s.reserve(len(b) - done)
		if err == nil {
			copy(buf[proto.FrameHeaderSize:], b[done:done+n])
			err = s.send(buf, n)
		}
		if err != nil {
			return done, &Error{Op: "stdin", Err: err}
		}
		done += n
	}
	return done, nil
}

// ReadFrom sends what r gives until its end, without copying it once more.
func (s *Stdin) ReadFrom(r io.Reader) (int64, error) {
	buf := frames.Get().(*[proto.FrameHeaderSize + proto.MaxData]byte)
	defer frames.Put(buf)
	var done int64
	for {
		room, err := s.reserve(proto.MaxData)
		if err != nil {
			return done, &Error{Op: "stdin", Err: err}
		}
		n, rerr := r.Read(buf[proto.FrameHeaderSize:][:room])
		if n > 0 {
			err = s.send(buf, n)
		}
		s.release(room - n)
		if err != nil {
			return done, &Error{Op: "stdin", Err: err}
		}
		done += int64(n)
		if rerr == io.EOF {
			return done, nil
		}
		if rerr != nil {
			return done, rerr
		}
	}
}

func (s *Stdin) send(buf *[proto.FrameHeaderSize + proto.MaxData]byte, n int) error {
	proto.PutHeader(buf[:], proto.TypeStdin, n)
	err := s.p.write(buf[:proto.FrameHeaderSize+n])
	if err == io.EOF || err == ErrLost {
		return syscall.EPIPE // Next tells which of the two it was
	}
	return err
}

// Close ends the command's stdin; what was written before still arrives. It is
// idempotent. It does not unblock a Write; closing the Process does.
func (s *Stdin) Close() error {
	p := s.p
	p.mu.Lock()
	open := p.stdin == nil && p.err == nil
	if p.stdin == nil {
		p.stdin = ErrNoStdin
	}
	p.mu.Unlock()
	if !open {
		return nil
	}
	err := p.write([]byte{0, 0, 0, 0, byte(proto.TypeStdinClose)})
	if err != nil && err != io.EOF && err != ErrLost {
		return &Error{Op: "stdin", Err: err}
	}
	return nil
}

// Credit is how many bytes of stdin may be sent now without waiting.
func (p *Process) Credit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.credit
}
