package client

import (
	"context"
	"io"
	"net"
	"os"
	"sync"

	"github.com/hutchvm/hutch/agent/proto"
)

// EventKind is what an Event tells.
type EventKind uint8

// The kinds of Event.
const (
	EventStdout     EventKind = 1 // Data
	EventStderr     EventKind = 2 // Data
	EventStdinError EventKind = 3 // Errno: the command takes no more stdin
	EventExited     EventKind = 4 // Exit: the last event
)

// Event is something that a command did.
type Event struct {
	Kind  EventKind
	Data  []byte // valid until the next call of Next
	Errno uint32 // Linux's number
	Exit  proto.Exited
}

// Process is a command that runs in the guest.
//
// The command leads a session and process group of its own. Signals go to the
// whole group; processes that left it, as daemons do, are neither signalled nor
// killed with it. When the command itself ends, EventExited follows what it has
// written; background processes live on, and what they print after that is
// thrown away (on a terminal they are hung up).
//
// Its events have to be taken with Next, by one goroutine at a time: a command
// whose output is not taken is held up in its writes, and nothing is buffered
// beyond a few hundred KiB. All other methods are safe for concurrent use, also
// with Next.
type Process struct {
	conn net.Conn
	pid  int
	stop func() bool // ends the watch on the context

	r *proto.Reader // belongs to whoever set reading

	mu      sync.Mutex
	changed sync.Cond // any of the fields below
	reading bool      // a goroutine reads the connection, without mu
	lent    bool      // the caller of Next may still look at r's buffer
	pending Event     // read, but not taken; Kind 0: none
	err     error     // the end: io.EOF after the exit
	credit  int       // bytes of stdin that may be sent
	stdin   error     // why no more stdin is taken

	wmu sync.Mutex // a whole frame is written at once
}

// Exec starts a command and returns when it runs. A command that cannot start
// is a *[proto.StartError]. When ctx ends, the command's whole process group is
// killed and every method that waits returns.
func (a *Agent) Exec(ctx context.Context, req *proto.Exec) (*Process, error) {
	frame, err := proto.AppendFrame(proto.AppendHandshake(nil), req)
	if err != nil {
		return nil, &Error{Op: "exec", Err: err}
	}
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, &Error{Op: "exec", Err: cause(ctx, err)}
	}
	p := &Process{conn: conn, r: proto.NewReader(conn)}
	p.changed.L = &p.mu
	if req.Stdin {
		p.credit = proto.StdinWindow
	} else {
		p.stdin = ErrNoStdin
	}
	p.mu.Lock()
	p.stop = context.AfterFunc(ctx, func() { p.end(&Error{Op: "exec", Err: context.Cause(ctx)}) })
	p.mu.Unlock()
	if err := p.start(frame); err != nil {
		p.end(&Error{Op: "exec", Err: cause(ctx, err)})
		_, err := p.Next() // the first error is the one that counts
		return nil, err
	}
	return p, nil
}

func (p *Process) start(frame []byte) error {
	if _, err := p.conn.Write(frame); err != nil {
		return err
	}
	if err := p.r.Handshake(); err != nil {
		return err
	}
	t, payload, err := p.r.Next()
	if err != nil {
		return err
	}
	switch t {
	case proto.TypeStarted:
		m := new(proto.Started)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		p.pid = int(m.PID)
		return nil
	case proto.TypeStartError:
		m := new(proto.StartError)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		return m
	case proto.TypeFault:
		return fault(payload)
	}
	return &proto.Error{Op: "exec", Err: proto.ErrUnexpected}
}

// PID is the command's process ID in the guest.
func (p *Process) PID() int { return p.pid }

// Next waits for the next event. After EventExited it returns [io.EOF].
func (p *Process) Next() (Event, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent = false
	for {
		switch {
		case p.pending.Kind != 0:
			ev := p.pending
			p.pending = Event{}
			p.lent = len(ev.Data) > 0
			p.changed.Broadcast()
			return ev, nil
		case p.err != nil:
			return Event{}, p.err
		case p.reading:
			p.changed.Wait()
		default:
			p.step()
		}
	}
}

// step reads one frame. It is called with mu, which it leaves meanwhile, by
// Next, or by a writer of stdin who waits for credit while nobody is in Next:
// so no goroutine is needed for reading, and stdin flows without Next for as
// long as the command prints nothing.
func (p *Process) step() {
	p.reading = true
	if p.lent {
		p.r.Detach()
		p.lent = false
	}
	p.mu.Unlock()
	t, payload, err := p.r.Next()
	p.mu.Lock()
	p.reading = false
	p.changed.Broadcast()
	if err == nil {
		err = p.take(t, payload)
	}
	if err != nil {
		p.endLocked(&Error{Op: "exec", Err: cause(context.Background(), err)})
	}
}

// take handles one frame from the guest. It is called with mu.
func (p *Process) take(t proto.Type, payload []byte) error {
	switch t {
	case proto.TypeStdout, proto.TypeStderr:
		if len(payload) == 0 {
			return &proto.Error{Op: "exec", Err: proto.ErrMalformed}
		}
		kind := EventStdout
		if t == proto.TypeStderr {
			kind = EventStderr
		}
		p.pending = Event{Kind: kind, Data: payload}
	case proto.TypeStdinCredit:
		m := new(proto.StdinCredit)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		if int64(m.Bytes) > int64(proto.StdinWindow-p.credit) {
			return &proto.Error{Op: "stdin credit", Err: proto.ErrTooLarge}
		}
		p.credit += int(m.Bytes)
	case proto.TypeStdinError:
		m := new(proto.StdinError)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		if p.stdin == nil {
			p.stdin = stdinError(m.Errno)
		}
		p.pending = Event{Kind: EventStdinError, Errno: m.Errno}
	case proto.TypeExited:
		m := new(proto.Exited)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		p.pending = Event{Kind: EventExited, Exit: *m}
		p.endLocked(io.EOF)
	case proto.TypeFault:
		return fault(payload)
	default:
		return &proto.Error{Op: "exec", Err: proto.ErrUnexpected}
	}
	return nil
}

func (p *Process) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(err)
}

func (p *Process) endLocked(err error) {
	if p.err != nil {
		return
	}
	p.err = err
	p.stop()
	p.conn.Close()
	p.changed.Broadcast()
}

// Close gives the command up: unless it has ended already, its process group is
// killed. It does not wait for that. Close is idempotent.
func (p *Process) Close() error {
	p.end(&Error{Op: "exec", Err: ErrClosed})
	return nil
}

// Signal sends a signal, by Linux's number, to the command's process group. Once
// Next has returned EventExited it fails with [os.ErrProcessDone].
func (p *Process) Signal(number int) error {
	if number < 1 || number > 64 {
		return &Error{Op: "signal", Err: proto.ErrMalformed}
	}
	return p.message("signal", &proto.Signal{Number: uint8(number)})
}

// Kill sends SIGKILL to the command's process group.
func (p *Process) Kill() error { return p.Signal(9) }

// Resize changes the size of the command's terminal.
func (p *Process) Resize(rows, cols uint16) error {
	return p.message("resize", &proto.Resize{Rows: rows, Cols: cols})
}

func (p *Process) message(op string, m proto.Message) error {
	frame, err := proto.AppendFrame(nil, m)
	if err == nil {
		err = p.write(frame)
	}
	if err == io.EOF {
		err = os.ErrProcessDone
	}
	if err != nil {
		return &Error{Op: op, Err: err}
	}
	return nil
}

func (p *Process) write(frame []byte) error {
	p.wmu.Lock()
	_, err := p.conn.Write(frame)
	p.wmu.Unlock()
	if err == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	// Next finds out why, and may still find the command's last frames.
	return ErrLost
}
