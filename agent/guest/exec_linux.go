package guest

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// execution is a command that runs, and its connection.
type execution struct {
	server *Server
	conn   Conn
	kid    *child
	tty    bool
	master *os.File // of the terminal
	in     *stdin
	outs   []*output
	work   sync.WaitGroup

	wmu  sync.Mutex // a frame is written at once
	buf  []byte
	lost bool // the connection takes no more

	fault atomic.Pointer[proto.Fault] // the host broke the protocol
}

// pipes are both ends of a command's streams.
type pipes struct {
	ours   [3]*os.File // they poll
	theirs streams
}

func (p *pipes) closeTheirs() {
	for i, f := range p.theirs {
		if f != nil && (i == 0 || f != p.theirs[0]) {
			f.Close()
		}
	}
}

func (p *pipes) closeOurs() {
	for _, f := range p.ours {
		if f != nil {
			f.Close()
		}
	}
}

// openPipes makes a command's streams.
func openPipes(req *proto.Exec, id identity) (p pipes, err error) {
	defer func() {
		if err != nil {
			p.closeOurs()
			p.closeTheirs()
		}
	}()
	if req.TTY {
		master, slave, err := openPTY(req.Rows, req.Cols, id)
		if err != nil {
			failed := startError(proto.StageIO, "terminal", err)
			failed.Kind = proto.StartPTY
			return p, failed
		}
		p.ours[1] = master
		p.theirs = streams{slave, slave, slave}
		return p, nil
	}
	for i := range 3 {
		if i == 0 && !req.Stdin {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return p, startError(proto.StageIO, "/dev/null", err)
			}
			p.theirs[0] = os.NewFile(uintptr(fd), "null")
			continue
		}
		var fds [2]int
		if err = unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return p, startError(proto.StageIO, "pipe", err)
		}
		our, their := 0, 1
		if i == 0 {
			our, their = 1, 0
		}
		unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
		unix.SetNonblock(fds[our], true)
		p.ours[i] = os.NewFile(uintptr(fds[our]), "pipe")
		p.theirs[i] = os.NewFile(uintptr(fds[their]), "pipe")
		if id.uid != 0 {
			unix.Fchown(fds[their], int(id.uid), -1) // so that the user can open /dev/stdout
		}
	}
	return p, nil
}

// exec runs one command to its end.
func (s *Server) exec(conn Conn, r *proto.Reader, req *proto.Exec) {
	e := &execution{server: s, conn: conn, tty: req.TTY, buf: proto.AppendHandshake(nil)}
	p, err := s.start(e, req)
	if err != nil {
		e.message(startError(proto.StageExec, "", err))
		return
	}
	defer s.finish(e)
	e.message(&proto.Started{PID: uint32(e.kid.pid)})
	if err := e.attach(p, req); err != nil { // not with pipes and terminals
		s.reaper.kill(e.kid, unix.SIGKILL)
	}
	for _, o := range e.outs {
		s.carry(o)
	}
	e.work.Go(func() { e.listen(r) })

	<-e.kid.exited
	if e.in != nil {
		e.in.abort()
	}
	for _, o := range e.outs {
		o.leaderExited()
	}
	for _, o := range e.outs {
		<-o.done
	}
	if fault := e.fault.Load(); fault != nil {
		e.message(fault)
	} else {
		e.message(e.exited())
	}
	conn.Close() // ends listen
	e.work.Wait()
}

// start makes the streams and the process.
func (s *Server) start(e *execution, req *proto.Exec) (*pipes, error) {
	c, err := s.prepare(req)
	if err != nil {
		return nil, err
	}
	p, err := openPipes(req, c.id)
	if err != nil {
		return nil, err
	}
	e.kid, err = s.launch(c, p.theirs)
	p.closeTheirs()
	if err == nil {
		if err = s.begin(e); err != nil {
			s.reaper.kill(e.kid, unix.SIGKILL)
		}
	}
	if err != nil {
		p.closeOurs()
		return nil, err
	}
	return &p, nil
}

// attach ties the streams to the connection.
func (e *execution) attach(p *pipes, req *proto.Exec) error {
	for i, kind := range []proto.Type{1: proto.TypeStdout, 2: proto.TypeStderr} {
		if p.ours[i] == nil || i == 0 {
			continue
		}
		o, err := newOutput(p.ours[i], kind, req.TTY, e.server.grace, e.data)
		if err != nil {
			return err
		}
		e.outs = append(e.outs, o)
	}
	to := p.ours[0]
	if req.TTY {
		e.master, to = p.ours[1], p.ours[1]
	}
	if !req.Stdin {
		return nil
	}
	var err error
	e.in, err = newStdin(to, req.TTY, &e.work,
		func(n int) { e.message(&proto.StdinCredit{Bytes: uint32(n)}) },
		func(errno unix.Errno) { e.message(&proto.StdinError{Errno: uint32(errno)}) })
	return err
}

// listen takes the host's frames until the connection ends. It never waits for
// the command, nor for the host to read.
func (e *execution) listen(r *proto.Reader) {
	for {
		t, payload, err := r.Next()
		var broken *proto.Error
		if err == nil {
			if err = e.take(t, payload); err == nil {
				continue
			}
			broken = &proto.Error{Op: "exec", Err: err}
		}
		if broken != nil || errors.As(err, &broken) {
			e.fault.Store(&proto.Fault{Message: broken.Error()})
		}
		// Whether it is the host that ended this or the command, which has this
		// connection closed: nobody waits for more than the last words.
		e.conn.SetWriteDeadline(time.Now().Add(faultPatience))
		e.kill()
		return
	}
}

func (e *execution) take(t proto.Type, payload []byte) error {
	switch t {
	case proto.TypeStdin:
		if e.in == nil {
			break
		}
		return e.in.put(payload)
	case proto.TypeStdinClose:
		if e.in == nil {
			break
		}
		return e.in.end()
	case proto.TypeSignal:
		m := new(proto.Signal)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		if m.Number < 1 || m.Number > 64 {
			return proto.ErrMalformed
		}
		if m.Number == uint8(unix.SIGKILL) {
			e.kill()
		} else {
			e.server.reaper.kill(e.kid, unix.Signal(m.Number))
		}
		return nil
	case proto.TypeResize:
		m := new(proto.Resize)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		if e.master == nil {
			break
		}
		setSize(e.master, m.Rows, m.Cols) // fails when the command has ended
		return nil
	}
	return proto.ErrUnexpected
}

// kill kills the command's process group, and on a terminal also the group in
// the foreground, which a shell with job control has made for its command.
// Processes that left for a session of their own are not found.
func (e *execution) kill() {
	if e.master != nil {
		if pgrp := foreground(e.master); pgrp > 1 {
			unix.Kill(-pgrp, unix.SIGKILL)
		}
	}
	e.server.reaper.kill(e.kid, unix.SIGKILL)
}

// data sends a frame of output, waiting for the host. Once the connection is
// lost it drops it: the command is being killed.
func (e *execution) data(f *frame, n int) {
	e.wmu.Lock()
	defer e.wmu.Unlock()
	e.write(f[:proto.FrameHeaderSize+n])
}

func (e *execution) message(m proto.Message) {
	e.wmu.Lock()
	defer e.wmu.Unlock()
	frame, err := proto.AppendFrame(e.buf, m)
	if err != nil {
		return // no message of ours is too large
	}
	e.buf = frame[:0]
	e.write(frame)
}

func (e *execution) write(b []byte) {
	if e.lost {
		return
	}
	if _, err := e.conn.Write(b); err != nil {
		e.lost = true
		if e.kid != nil {
			e.kill()
		}
	}
}

func (e *execution) exited() *proto.Exited {
	k := e.kid
	m := &proto.Exited{
		UserTime:   uint64(k.usage.Utime.Nano()),
		SystemTime: uint64(k.usage.Stime.Nano()),
		MaxRSS:     uint64(k.usage.Maxrss) << 10,
	}
	if k.status.Signaled() {
		m.Signal = uint8(k.status.Signal())
		m.Core = k.status.CoreDump()
	} else {
		m.Code = uint8(k.status.ExitStatus())
	}
	return m
}
