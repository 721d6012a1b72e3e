package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

// A running sandbox listens on a socket in its record, for other processes. A
// connection carries one request: "stop", of which one knows by the record's lock
// when it has happened; or "exec", which is answered, and after that the
// connection is one to the guest's agent. Who may open the socket may read the
// record as well.

const (
	// maxControl bounds the connections at one time, and requestPatience the
	// time that one may take to say what it wants.
	maxControl      = 16
	requestPatience = 5 * time.Second
	// maxRequest bounds a request in bytes.
	maxRequest = 4096
)

// controlRequest is the JSON that is sent.
type controlRequest struct {
	Op string `json:"op"` // "stop" or "exec"
	// Timeout of a stop is how long the guest has until it is killed; 0 kills
	// it at once.
	Timeout time.Duration `json:"timeout_ns,omitempty"`
}

// controlAnswer is the line that answers "exec".
type controlAnswer struct {
	Error string `json:"error,omitempty"`
}

// controlServer serves the socket of one sandbox.
type controlServer struct {
	s      *Sandbox
	l      net.Listener
	closed context.Context
	cancel context.CancelFunc
	room   chan struct{}
	work   sync.WaitGroup
}

// serveControl begins to listen. A sandbox whose socket cannot be made works
// all the same.
func (s *Sandbox) serveControl() {
	l, err := listenControl(s.record.dir)
	if err != nil {
		s.cfg.Logger.Warn("control socket", "sandbox", s.name, "error", err)
		return
	}
	c := &controlServer{s: s, l: l, room: make(chan struct{}, maxControl)}
	c.closed, c.cancel = context.WithCancel(context.Background())
	c.work.Go(c.accept)
	s.control = c
}

// close stops listening. It does not wait for what requests ask for.
func (c *controlServer) close() {
	if c != nil {
		c.cancel()
		c.l.Close()
		c.work.Wait()
	}
}

func (c *controlServer) accept() {
	for {
		select {
		case c.room <- struct{}{}:
		case <-c.closed.Done():
			return
		}
		conn, err := c.l.Accept()
		if err != nil {
			return
		}
		c.work.Go(func() {
			defer func() { <-c.room }()
			c.serve(conn)
		})
	}
}

// serve reads a request and sees that it is done. The connection stays open as
// long as that takes.
func (c *controlServer) serve(conn net.Conn) {
	conn.SetReadDeadline(time.Now().Add(requestPatience))
	given := context.AfterFunc(c.closed, func() { conn.Close() })
	var r controlRequest
	err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&r)
	given()
	switch {
	case err == nil && r.Op == "stop":
		go c.stop(conn, r.Timeout)
	case err == nil && r.Op == "exec":
		go c.exec(conn)
	default:
		conn.Close()
	}
}

// stop ends right after the sandbox.
func (c *controlServer) stop(conn net.Conn, timeout time.Duration) {
	defer conn.Close()
	if timeout <= 0 {
		c.s.Kill()
	} else {
		c.s.stop(context.Background(), timeout, min(stopGrace, timeout/2))
	}
}

// exec connects the other process with the guest's agent. The command counts as
// one of the sandbox's.
func (c *controlServer) exec(conn net.Conn) {
	defer conn.Close()
	var answer controlAnswer
	err := c.s.begin()
	if err == nil {
		defer c.s.finish()
	}
	var guest net.Conn
	if err == nil {
		guest, err = c.s.devices.vsock.Dial(c.closed, proto.PortExec)
	}
	if err != nil {
		answer.Error = err.Error()
	} else {
		defer guest.Close()
	}
	conn.SetDeadline(time.Time{})
	if json.NewEncoder(conn).Encode(answer) != nil || err != nil {
		return
	}
	// Whichever side ends the connection ends the command.
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{conn, guest}, {guest, conn}} {
		go func() {
			io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
	guest.Close()
	conn.Close()
	<-done
}

// Stop ends the sandbox in order, as [Sandbox.Stop] does, in whichever process
// it runs: that is asked to over a socket, and has to be alive to do it. One
// that has ended is no error; ErrNotRunning is that of a sandbox that is only
// being created or started.
func (h *Handle) Stop(ctx context.Context) error {
	return newOpError("stop", h.info.Name, h.stop(ctx, stopTimeout))
}

// Kill ends the sandbox at once, as [Sandbox.Kill] does; see Stop. It does not
// kill the process that it runs in.
func (h *Handle) Kill(ctx context.Context) error {
	return newOpError("kill", h.info.Name, h.stop(ctx, 0))
}

const (
	// stopSlack is how much longer than it was told a process may take.
	stopSlack = 5 * time.Second
	// endPoll is how often the record's lock is looked at.
	endPoll = 10 * time.Millisecond
)

func (h *Handle) dir() string { return filepath.Join(recordsOf(h.home), h.info.Name) }

func (h *Handle) stop(ctx context.Context, timeout time.Duration) error {
	now, err := look(h.home, h.info.Name)
	if errors.Is(err, ErrNotFound) && h.info.Config.Ephemeral {
		return nil
	}
	switch {
	case err != nil:
		return err
	case !now.info.Created.Equal(h.info.Created):
		return fmt.Errorf("%w: another one has taken its name", ErrNotFound)
	case now.info.over() || now.status == StatusCrashed:
		return nil
	case now.status == StatusCreated || now.status == StatusStarting:
		return fmt.Errorf("%w: it is being started by process %d", ErrNotRunning, now.info.PID)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout+stopSlack, fmt.Errorf("%w: process %d did not stop it", ErrStillRunning, now.info.PID))
	defer cancel()
	dir := h.dir()
	if err := askToStop(ctx, dir, timeout); err != nil && held(dir) {
		return fmt.Errorf("%w: process %d cannot be asked to stop it: %w", ErrStillRunning, now.info.PID, err)
	}
	poll := time.NewTicker(endPoll)
	defer poll.Stop()
	for held(dir) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// askToStop sends the request and waits until the connection is closed, which
// happens when it is done, or the process has ended.
func askToStop(ctx context.Context, dir string, timeout time.Duration) error {
	conn, err := dialControl(ctx, dir)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(controlRequest{Op: "stop", Timeout: timeout}); err != nil {
		return err
	}
	conn.Read(make([]byte, 1)) // nothing comes but the end
	return nil
}

// replace removes what has the sandbox's name.
func (c *config) replace(ctx context.Context) error {
	h, err := look(c.Home, c.Name)
	if err == nil {
		err = h.stop(ctx, c.ReplaceTimeout)
	}
	if err != nil && (errors.Is(err, ErrStillRunning) || errors.Is(err, ErrNotRunning) || ctx.Err() != nil) {
		return fmt.Errorf("WithReplace: %w", err)
	}
	// Also a record that cannot be read.
	if err := removeNamed(c.Home, c.Name); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("WithReplace: %w", err)
	}
	return nil
}
