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
)

// A running sandbox listens on a socket in its record, so that another process
// can have it ended: that sends one request, and knows by the record's lock when
// it has happened. Who may open the socket may read the record as well.

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
	Op string `json:"op"` // "stop"
	// Timeout is how long the guest has until it is killed; 0 kills it at once.
	Timeout time.Duration `json:"timeout_ns"`
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
	if err != nil || r.Op != "stop" {
		conn.Close()
		return
	}
	go func() { // it ends right after the sandbox
		defer conn.Close()
		if r.Timeout <= 0 {
			c.s.Kill()
		} else {
			c.s.stop(context.Background(), r.Timeout, min(stopGrace, r.Timeout/2))
		}
	}()
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
	dir := filepath.Join(recordsOf(h.home), h.info.Name)
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
