package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

// maxWaiting bounds the requests on the control connection that are not
// answered yet. Those whose caller gave up count until their answer comes.
const maxWaiting = 64

// Dialer connects to the agent's port for operations, [proto.PortExec].
type Dialer func(ctx context.Context) (net.Conn, error)

// Agent is a guest agent that has said hello. Its methods are safe for
// concurrent use.
type Agent struct {
	conn  net.Conn
	dial  Dialer
	hello proto.Hello

	writing chan struct{} // holds one: a frame is written at once, in the order of waiting

	mu      sync.Mutex
	waiting []*waiter
	pings   uint64
	err     error

	ended chan struct{} // the connection is broken or closed
	idle  chan struct{} // the reading goroutine has ended
}

// waiter is a request whose answer has not come. The agent answers in order.
type waiter struct {
	accept func(proto.Type) proto.Message // the message to decode into, or nil
	answer chan proto.Message             // holds one
}

// Accept waits on ln for the agent's control connection and its hello. The
// connections of operations come from dial. When ctx ends early, Accept closes
// ln, for there is no other way to leave it.
func Accept(ctx context.Context, ln net.Listener, dial Dialer) (*Agent, error) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	conn, err := ln.Accept()
	if !stop() && err == nil {
		conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, &Error{Op: "accept", Err: cause(ctx, err)}
	}
	return New(ctx, conn, dial)
}

// New does what Accept does on a control connection that stands already. It
// owns conn, also when it fails.
func New(ctx context.Context, conn net.Conn, dial Dialer) (*Agent, error) {
	a := &Agent{conn: conn, dial: dial, writing: make(chan struct{}, 1), ended: make(chan struct{}), idle: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := proto.NewReader(conn)
	err := a.greet(r)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, &Error{Op: "accept", Err: cause(ctx, err)}
	}
	go a.read(r)
	return a, nil
}

// Remote returns the Agent of a guest whose control connection is another's. It
// can run operations only; everything else fails with ErrClosed.
func Remote(dial Dialer) *Agent {
	a := &Agent{dial: dial, err: &Error{Op: "control", Err: ErrClosed}, ended: make(chan struct{}), idle: make(chan struct{})}
	close(a.ended)
	close(a.idle)
	return a
}

func (a *Agent) greet(r *proto.Reader) error {
	if err := r.Handshake(); err != nil {
		return err
	}
	t, payload, err := r.Next()
	if err != nil {
		return err
	}
	if t != proto.TypeHello {
		return &proto.Error{Op: "hello", Err: proto.ErrUnexpected}
	}
	if err := proto.Unmarshal(payload, &a.hello); err != nil {
		return err
	}
	_, err = a.conn.Write(proto.AppendHandshake(nil))
	return err
}

// cause prefers the reason why ctx ended over the error that this led to.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrLost
	}
	return err
}

// Hello is what the agent said about itself and the guest's boot.
func (a *Agent) Hello() proto.Hello { return a.hello }

// Boot is how the guest's boot went, by the guest's own clock.
func (a *Agent) Boot() proto.BootStamps { return a.hello.Boot }

// Setup makes the guest what s says. An error that the agent reports is a
// *[proto.SetupError]; after it the guest is of no further use.
func (a *Agent) Setup(ctx context.Context, s *proto.Setup) (proto.SetupDone, error) {
	answer, err := a.request(ctx, s, func(t proto.Type) proto.Message {
		switch t {
		case proto.TypeSetupDone:
			return new(proto.SetupDone)
		case proto.TypeSetupError:
			return new(proto.SetupError)
		}
		return nil
	})
	if err != nil {
		return proto.SetupDone{}, &Error{Op: "setup", Err: err}
	}
	if failed, ok := answer.(*proto.SetupError); ok {
		return proto.SetupDone{}, &Error{Op: "setup", Err: failed}
	}
	return *answer.(*proto.SetupDone), nil
}

// Ping returns once the agent has answered.
func (a *Agent) Ping(ctx context.Context) error {
	a.mu.Lock()
	a.pings++
	id := a.pings
	a.mu.Unlock()
	answer, err := a.request(ctx, &proto.Ping{ID: id}, func(t proto.Type) proto.Message {
		if t == proto.TypePong {
			return new(proto.Pong)
		}
		return nil
	})
	if err == nil && answer.(*proto.Pong).ID != id {
		err = &proto.Error{Op: "pong", Err: proto.ErrUnexpected}
		a.fail(err)
	}
	if err != nil {
		return &Error{Op: "ping", Err: err}
	}
	return nil
}

// Shutdown ends every process of the guest (SIGTERM, and SIGKILL after grace),
// writes all data to its disks and takes the machine down. It returns when the
// data is safe; the machine goes down right after, and the Agent is closed.
func (a *Agent) Shutdown(ctx context.Context, grace time.Duration) (proto.ShutdownDone, error) {
	answer, err := a.request(ctx, &proto.Shutdown{Grace: uint64(max(grace, 0))}, func(t proto.Type) proto.Message {
		if t == proto.TypeShutdownDone {
			return new(proto.ShutdownDone)
		}
		return nil
	})
	if err != nil {
		return proto.ShutdownDone{}, &Error{Op: "shutdown", Err: err}
	}
	a.Close() // the agent waits for this before it takes the machine down
	return *answer.(*proto.ShutdownDone), nil
}

// Done is closed when the control connection is broken or closed.
func (a *Agent) Done() <-chan struct{} { return a.ended }

// Err is why the control connection ended, or nil while it stands.
func (a *Agent) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// Close closes the control connection and waits for its goroutine. Processes
// have connections of their own and are not touched. The guest's agent takes
// its machine down when it loses the control connection.
func (a *Agent) Close() error {
	a.fail(&Error{Op: "control", Err: ErrClosed})
	<-a.idle
	return nil
}

func (a *Agent) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	a.err = err
	close(a.ended)
	a.conn.Close()
}

func (a *Agent) request(ctx context.Context, m proto.Message, accept func(proto.Type) proto.Message) (proto.Message, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	frame, err := proto.AppendFrame(nil, m)
	if err != nil {
		return nil, err
	}
	w := &waiter{accept: accept, answer: make(chan proto.Message, 1)}
	if err := a.send(ctx, w, frame); err != nil {
		return nil, cause(ctx, err)
	}
	select {
	case answer := <-w.answer:
		return answer, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-a.ended:
	}
	select {
	case answer := <-w.answer: // it came just before the end
		return answer, nil
	default:
		return nil, a.Err()
	}
}

// send writes a request's frame and notes who waits for its answer.
func (a *Agent) send(ctx context.Context, w *waiter, frame []byte) error {
	select {
	case a.writing <- struct{}{}:
		defer func() { <-a.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.ended:
		return a.Err()
	}
	if err := a.expect(w); err != nil {
		return err
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		a.conn.SetWriteDeadline(time.Unix(1, 0))
		close(over)
	})
	n, err := a.conn.Write(frame)
	if !stop() {
		<-over
		a.conn.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case n == 0 && ctx.Err() != nil && a.forget(w):
		return context.Cause(ctx) // as if nothing had been
	}
	err = cause(ctx, err)
	a.fail(&Error{Op: "control", Err: err}) // a frame that is cut spoils what follows
	return err
}

func (a *Agent) expect(w *waiter) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return a.err
	}
	if len(a.waiting) >= maxWaiting {
		return ErrStalled
	}
	a.waiting = append(a.waiting, w)
	return nil
}

// forget takes back the last expect. It fails when the guest has answered
// what it was not asked.
func (a *Agent) forget(w *waiter) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := len(a.waiting) - 1
	if last < 0 || a.waiting[last] != w {
		return false
	}
	a.waiting = a.waiting[:last]
	return true
}

// read hands the answers to their waiters until the connection ends.
func (a *Agent) read(r *proto.Reader) {
	defer close(a.idle)
	for {
		t, payload, err := r.Next()
		if err == nil {
			err = a.take(t, payload)
		}
		if err != nil {
			a.fail(&Error{Op: "control", Err: cause(context.Background(), err)})
			return
		}
	}
}

func (a *Agent) take(t proto.Type, payload []byte) error {
	if t == proto.TypeFault {
		return fault(payload)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == 0 {
		return &proto.Error{Op: "control", Err: proto.ErrUnexpected}
	}
	w := a.waiting[0]
	m := w.accept(t)
	if m == nil {
		return &proto.Error{Op: "control", Err: proto.ErrUnexpected}
	}
	if err := proto.Unmarshal(payload, m); err != nil {
		return err
	}
	a.waiting = a.waiting[1:]
	w.answer <- m
	return nil
}

func fault(payload []byte) error {
	m := new(proto.Fault)
	if err := proto.Unmarshal(payload, m); err != nil {
		return err
	}
	return m
}
