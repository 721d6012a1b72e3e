package guest

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// creditStep is how much of stdin has to have been taken before the host is
// granted that much again. It is well under the window, so that the host never
// waits for a grant that does not come.
const creditStep = proto.StdinWindow / 4

// ttyEOF is what the end of stdin is on a terminal: control-D.
var ttyEOF = []byte{4}

var errStdinWindow = errors.New("stdin beyond its window")

// stdin carries what the host sends to the command. put never waits: what the
// command does not take at once is kept, up to the window, for a goroutine of
// its own, and so the host's signals are never behind a command that does not
// read.
type stdin struct {
	file *os.File
	raw  syscall.RawConn
	tty  bool
	// grant and fail tell the host; they may wait for the connection.
	grant func(n int)
	fail  func(errno unix.Errno)

	mu      sync.Mutex
	wake    sync.Cond
	pending []byte // at most the window
	spare   []byte // a buffer that pending was in before, for reuse
	held    int    // bytes that were received and not granted back,
	taken   int    // and those of them that the command's pipe has taken
	closed  bool   // the host will send no more
	broken  bool   // the command takes no more
	running bool   // the goroutine exists,
	writing bool   // and writes
	wait    *sync.WaitGroup
}

func newStdin(file *os.File, tty bool, wait *sync.WaitGroup, grant func(int), fail func(unix.Errno)) (*stdin, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &stdin{file: file, raw: raw, tty: tty, wait: wait, grant: grant, fail: fail}
	s.wake.L = &s.mu
	return s, nil
}

// put takes data from the host. It waits for nothing, neither the command nor
// the connection. The error is a violation of the protocol.
func (s *stdin) put(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && !s.broken {
		return proto.ErrUnexpected
	}
	if s.broken {
		return nil
	}
	if s.held+len(b) > proto.StdinWindow {
		return errStdinWindow
	}
	s.held += len(b)
	if len(s.pending) == 0 && !s.writing {
		n := s.try(b) // most often the pipe has room: no copy, no goroutine
		b = b[n:]
		s.taken += n
	}
	s.pending = append(s.pending, b...)
	if len(s.pending) > 0 || s.taken >= creditStep {
		s.start()
	}
	return nil
}

// try writes what fits. Errors are left to the goroutine.
func (s *stdin) try(b []byte) (n int) {
	s.raw.Control(func(fd uintptr) { n, _ = unix.Write(int(fd), b) })
	return max(n, 0)
}

// end closes the stream once everything before has been written.
func (s *stdin) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && !s.broken {
		return proto.ErrUnexpected
	}
	s.closed = true
	if s.broken {
		return nil
	}
	if len(s.pending) > 0 || s.running {
		s.start()
		return nil
	}
	s.finish()
	return nil
}

func (s *stdin) finish() {
	if s.tty {
		s.try(ttyEOF)
		return // the output side owns the terminal
	}
	s.file.Close()
}

// abort ends the stream now; the command has ended.
func (s *stdin) abort() {
	s.mu.Lock()
	s.closed, s.broken = true, true
	s.pending = nil
	s.mu.Unlock()
	s.wake.Signal()
	if !s.tty {
		s.file.Close()
	}
}

func (s *stdin) start() {
	if !s.running {
		s.running = true
		s.wait.Add(1)
		go s.run()
	}
	s.wake.Signal()
}

// run writes what put had to keep, and grants.
func (s *stdin) run() {
	defer s.wait.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.broken {
		switch {
		case s.taken >= creditStep:
			s.settle()
		case len(s.pending) > 0:
			s.flush()
		case s.closed:
			s.finish()
			s.running = false
			return
		default:
			s.wake.Wait()
		}
	}
	s.running = false
}

// settle grants the host what the command has taken. It leaves mu meanwhile.
func (s *stdin) settle() {
	n := s.taken
	s.held -= n
	s.taken = 0
	s.mu.Unlock()
	s.grant(n)
	s.mu.Lock()
}

// flush writes what is pending now. It leaves mu while it waits for the
// command.
func (s *stdin) flush() {
	all := s.pending
	s.pending, s.spare = s.spare[:0], nil
	s.writing = true
	for b := all; len(b) > 0 && !s.broken; {
		s.mu.Unlock()
		n, err := s.file.Write(b[:min(len(b), creditStep)])
		s.mu.Lock()
		b = b[n:]
		s.taken += n
		if err != nil && !s.broken {
			s.broken = true
			s.pending = nil
			s.mu.Unlock()
			s.fail(errnoOf(err))
			s.mu.Lock()
		}
		if s.taken >= creditStep && !s.broken {
			s.settle()
		}
	}
	s.writing = false
	s.spare = all
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EPIPE // closed on our side: the command has ended
}
