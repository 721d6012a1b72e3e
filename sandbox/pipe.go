package sandbox

import (
	"errors"
	"io"
	"sync"
)

// pipeSize is what a pipe holds before its writer waits, as in Linux.
const pipeSize = 64 << 10

// pipe is a buffered pipe between two goroutines: unlike io.Pipe it lets a
// command print to one of its pipes while the other is being read.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     [pipeSize]byte
	r, n    int // first byte, number of bytes
	closed  bool
	gone    bool // no reader
}

func newPipe() *pipe {
	p := &pipe{}
	p.changed.L = &p.mu
	return p
}

func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.n == 0 && !p.closed && !p.gone {
		p.changed.Wait()
	}
	if p.gone {
		return 0, io.ErrClosedPipe
	}
	if p.n == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.buf[p.r:min(p.r+p.n, pipeSize)])
	p.r, p.n = (p.r+n)%pipeSize, p.n-n
	p.changed.Broadcast()
	return n, nil
}

// Close is the reader's: a writer gets io.ErrClosedPipe from then on.
func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.changed.Broadcast()
	return nil
}

// pipeWriter is the writing end of a pipe.
type pipeWriter struct{ p *pipe }

func (w pipeWriter) Write(b []byte) (int, error) {
	p := w.p
	p.mu.Lock()
	defer p.mu.Unlock()
	done := 0
	for done < len(b) {
		for p.n == pipeSize && !p.gone && !p.closed {
			p.changed.Wait()
		}
		if p.gone || p.closed {
			return done, io.ErrClosedPipe
		}
		at := (p.r + p.n) % pipeSize
		n := copy(p.buf[at:min(at+pipeSize-p.n, pipeSize)], b[done:])
		p.n += n
		done += n
		p.changed.Broadcast()
	}
	return done, nil
}

// Close is the end of file for the reader.
func (w pipeWriter) Close() error {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.closed = true
	w.p.changed.Broadcast()
	return nil
}

// StdoutPipe returns a reader of the command's standard output. It must be
// called before Start, and all must be read, or the reader closed, before Wait.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) { return c.outPipe("StdoutPipe", &c.Stdout) }

// StderrPipe is StdoutPipe for the standard error.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) { return c.outPipe("StderrPipe", &c.Stderr) }

func (c *Cmd) outPipe(op string, w *io.Writer) (io.ReadCloser, error) {
	if *w != nil || c.ended != nil {
		return nil, c.s.opErr("exec", errors.New(op+": set already, or the command was started"))
	}
	p := newPipe()
	*w = pipeWriter{p}
	c.pipes = append(c.pipes, pipeWriter{p})
	return p, nil
}

// StdinPipe returns the command's standard input. It must be called before
// Start; closing it is the end of file.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.stdin != nil || c.ended != nil {
		return nil, c.s.opErr("exec", errors.New("StdinPipe: set already, or the command was started"))
	}
	c.stdin = &stdinPipe{ready: make(chan struct{})}
	return c.stdin, nil
}

// stdinPipe is a command's stdin before and after the command was started.
type stdinPipe struct {
	ready chan struct{}
	once  sync.Once
	w     io.WriteCloser
	err   error
}

func (p *stdinPipe) start(w io.WriteCloser) { p.once.Do(func() { p.w = w; close(p.ready) }) }
func (p *stdinPipe) fail(err error)         { p.once.Do(func() { p.err = err; close(p.ready) }) }

// Write waits for the command to be started.
func (p *stdinPipe) Write(b []byte) (int, error) {
	<-p.ready
	if p.err != nil {
		return 0, p.err
	}
	return p.w.Write(b)
}

func (p *stdinPipe) Close() error {
	<-p.ready
	if p.err != nil {
		return nil
	}
	return p.w.Close()
}

// edgeSize is how much edges keeps of either end.
const edgeSize = 32 << 10

// edges keeps the beginning and the end of what is written to it.
type edges struct {
	head, tail []byte
	skipped    int64
}

func (e *edges) Write(p []byte) (int, error) {
	n := len(p)
	k := min(edgeSize-len(e.head), len(p))
	e.head = append(e.head, p[:k]...)
	e.tail = append(e.tail, p[k:]...)
	if over := len(e.tail) - edgeSize; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
		e.skipped += int64(over)
	}
	return n, nil
}

// Bytes is what was kept, with a line that says what was left out.
func (e *edges) Bytes() []byte {
	if e.skipped == 0 {
		return append(e.head, e.tail...)
	}
	return append(append(e.head, "\n... (more) ...\n"...), e.tail...)
}
