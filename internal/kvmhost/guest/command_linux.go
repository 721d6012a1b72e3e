package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// Exit codes for a command that could not be started, as a shell gives them.
const (
	codeCannotRun = 126
	codeNotFound  = 127
)

// execute runs the command to its end and returns when all its output has been
// written to the ports.
func (m *machine) execute(c *wire.Command, control *bufio.Reader) wire.Status {
	io, err := connect(c)
	if err != nil {
		return wire.Status{Code: codeCannotRun, Error: err.Error()}
	}
	pid, err := start(c, io)
	if err != nil {
		code := codeCannotRun
		if errors.Is(err, os.ErrNotExist) {
			code = codeNotFound
		}
		return wire.Status{Code: code, Error: err.Error()}
	}
	io.closeInner()
	m.timing.Running = uptime()
	if err := m.send(wire.Started, m.timing); err != nil {
		return wire.Status{Code: codeCannotRun, Error: err.Error()}
	}

	input := newFeeder(m.ports.stdin, io.stdin, io.master != nil)
	go input.run()
	go obey(control, pid, io, input)
	ended := make(chan struct{})
	outDone := drain(m.ports.stdout, io.stdout, ended)
	errDone := drain(m.ports.stderr, io.stderr, ended)

	status := wire.Status{Code: reap(pid)}
	close(ended)
	status.Stdout, status.Stderr = <-outDone, <-errDone
	return status
}

// obey follows the outer side's frames. It ends with the machine.
func obey(control *bufio.Reader, pid int, io *stdio, input *feeder) {
	for {
		frame, err := wire.Read(control)
		if err != nil {
			return
		}
		switch frame.Type {
		case wire.Signal:
			var s wire.SignalNumber
			if frame.Decode(&s) != nil {
				continue
			}
			target := pid
			if s.Group {
				target = -pid
			}
			unix.Kill(target, unix.Signal(s.Number))
		case wire.Resize:
			var w wire.Window
			if frame.Decode(&w) == nil && io.master != nil {
				resize(io.master, w)
			}
		case wire.StdinEOF:
			var t wire.Total
			if frame.Decode(&t) == nil {
				input.end(t.Bytes)
			}
		}
	}
}

func resize(terminal *os.File, w wire.Window) error {
	return pty.Setsize(terminal, &pty.Winsize{Rows: w.Rows, Cols: w.Cols})
}

// reap collects the children that the first process inherits until the command
// itself ends, and returns its exit code.
func reap(pid int) int {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return codeCannotRun // not reached: the command is our child
		case got != pid:
		case ws.Signaled():
			return 128 + int(ws.Signal())
		case ws.Exited():
			return ws.ExitStatus()
		}
	}
}

// stdio is how the command is connected. The outer ends are the init's, the
// inner ones the command's.
type stdio struct {
	stdin, stdout, stderr *os.File // outer ends; nil if there is nothing to copy
	inner                 [3]*os.File
	master                *os.File // the terminal, if there is one
	slave                 *os.File
}

func connect(c *wire.Command) (*stdio, error) {
	s := new(stdio)
	if c.Stdin == wire.Terminal || c.Stdout == wire.Terminal || c.Stderr == wire.Terminal {
		var err error
		if s.master, s.slave, err = pty.Open(); err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		if err := errors.Join(resize(s.master, c.Window), s.slave.Chown(c.UID, c.GID)); err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
	}
	if err := s.input(c.Stdin); err != nil {
		return nil, err
	}
	var err error
	if s.stdout, s.inner[1], err = s.output(c.Stdout); err != nil {
		return nil, err
	}
	switch {
	case c.Stderr == wire.AsStdout:
		s.inner[2] = s.inner[1]
	case c.Stderr == wire.Terminal && c.Stdout == wire.Terminal:
		s.inner[2] = s.slave
	default:
		if s.stderr, s.inner[2], err = s.output(c.Stderr); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *stdio) input(kind wire.Stream) (err error) {
	switch kind {
	case wire.Terminal:
		s.inner[0], s.stdin = s.slave, s.master
	case wire.Pipe:
		s.inner[0], s.stdin, err = os.Pipe()
	default:
		s.inner[0], err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	return err
}

func (s *stdio) output(kind wire.Stream) (outer, inner *os.File, err error) {
	switch kind {
	case wire.Terminal:
		return s.master, s.slave, nil
	case wire.Pipe:
		return os.Pipe()
	default:
		inner, err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
		return nil, inner, err
	}
}

// closeInner closes the command's ends, so that the outer ones see its end.
func (s *stdio) closeInner() {
	for i, f := range s.inner {
		if f != nil && (i != 2 || f != s.inner[1]) && f != s.slave {
			f.Close()
		}
	}
	if s.slave != nil {
		s.slave.Close()
	}
}

// start runs the command in a session of its own, so that a signal can reach
// all that it started, and so that it can have a terminal.
func start(c *wire.Command, s *stdio) (int, error) {
	limit := &syscall.Rlimit{Cur: c.NoFile[0], Max: c.NoFile[1]}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	unix.Umask(c.Umask)
	groups := make([]uint32, len(c.Extra))
	for i, g := range c.Extra {
		groups[i] = uint32(g)
	}
	sys := &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID), Groups: groups},
	}
	if s.master != nil {
		sys.Setctty = true
		for i, f := range s.inner {
			if f == s.slave {
				sys.Ctty = i
				break
			}
		}
	}
	if !c.Spread {
		// The child has the CPUs of the thread that forks it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		restore, err := stayOnOne()
		if err != nil {
			return 0, err
		}
		defer restore()
	}
	pid, _, err := syscall.StartProcess(c.Path, c.Args, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Sys: sys,
		Files: []uintptr{s.inner[0].Fd(), s.inner[1].Fd(), s.inner[2].Fd()},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.Path, err)
	}
	return pid, nil
}

// drain copies one output of the command to its port until the end of the
// stream, or until the command has ended and nothing is left: a process that it
// left behind may hold the stream open for ever. It sends the number of bytes.
func drain(port io.Writer, from *os.File, ended <-chan struct{}) <-chan int64 {
	done := make(chan int64, 1)
	if from == nil {
		done <- 0
		return done
	}
	go func() {
		<-ended
		from.SetReadDeadline(time.Now())
	}()
	go func() {
		n, err := io.Copy(onlyWriter{port}, onlyReader{from})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			more, _ := io.Copy(onlyWriter{port}, leftover{from})
			n += more
		}
		done <- n
	}()
	return done
}

// onlyReader and onlyWriter hide the methods by which io.Copy would splice,
// which these devices do not support.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// leftover reads what is in a pipe or terminal now and then ends.
type leftover struct{ f *os.File }

func (l leftover) Read(p []byte) (n int, err error) {
	raw, err := l.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), p); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
	if cerr != nil || err != nil || n <= 0 { // EAGAIN means empty, EIO a terminal's end
		return 0, io.EOF
	}
	return n, nil
}
