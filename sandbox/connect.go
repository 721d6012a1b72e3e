package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/rootfs/oci"
)

// Connect gives a Sandbox for one that runs in another process, or elsewhere in
// this one. Commands can be run in it, and Stop, Kill and Wait work; what needs
// the machine itself (Pause, Resume, Drain, Ping, HostMemory, Console, dials of
// other kinds) is ErrUnsupported, or empty. Close only lets go of it: the
// sandbox lives as long as the process that owns it, through which everything
// passes. The error is ErrNotRunning when it does not run.
func (h *Handle) Connect(ctx context.Context) (*Sandbox, error) {
	s, err := h.connect(ctx)
	if err != nil {
		return nil, newOpError("connect", h.info.Name, err)
	}
	return s, nil
}

func (h *Handle) connect(ctx context.Context) (*Sandbox, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	now, err := look(h.home, h.info.Name)
	if err != nil {
		return nil, err
	}
	if now.status != StatusRunning {
		return nil, fmt.Errorf("%w: it is %s", ErrNotRunning, now.status)
	}
	c := now.info.Config
	c.Name, c.Home, c.Logger = now.info.Name, now.home, slog.New(slog.DiscardHandler)
	s := newSandbox(c)
	s.info, s.remote, s.root = now.info, now, &root{pin: now.info.Root}
	if digest := now.info.Root.Image; digest != "" {
		// For the default command. The image is there as long as the sandbox runs.
		if store, err := oci.Open(c.Home); err == nil {
			if img, err := store.Get(digest); err == nil {
				s.root.image = img.Config
			}
		}
	}
	s.agent = client.Remote(now.dialAgent)
	return s, nil
}

// dialAgent connects to the guest's agent through the owner.
func (h *Handle) dialAgent(ctx context.Context) (_ net.Conn, err error) {
	dir := h.dir()
	conn, err := dialControl(ctx, dir)
	if err != nil {
		if !held(dir) {
			return nil, ErrNotRunning
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	given := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	var answer controlAnswer
	if err = json.NewEncoder(conn).Encode(controlRequest{Op: "exec"}); err == nil {
		err = readAnswer(conn, &answer)
	}
	switch {
	case !given():
		return nil, context.Cause(ctx)
	case err != nil && !held(dir):
		return nil, ErrNotRunning
	case err == nil && answer.Error != "":
		err = fmt.Errorf("%w: %s", ErrNotRunning, answer.Error)
	}
	return conn, err
}

var errAnswer = errors.New("the process that runs the sandbox gave no answer")

// readAnswer reads one line and nothing beyond it: what follows is the agent's.
func readAnswer(conn net.Conn, answer *controlAnswer) error {
	line := make([]byte, 0, maxRequest)
	for len(line) < maxRequest {
		var b [1]byte
		if _, err := conn.Read(b[:]); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
		if b[0] == '\n' {
			return json.Unmarshal(line, answer)
		}
		line = append(line, b[0])
	}
	return errAnswer
}

// OwnsLifecycle tells whether the sandbox ends with this Sandbox: it does unless
// it came from [Handle.Connect].
func (s *Sandbox) OwnsLifecycle() bool { return s.remote == nil }

// waitRemote waits for the end of a sandbox of another process.
func (h *Handle) waitRemote(ctx context.Context) error {
	poll := time.NewTicker(endPoll)
	defer poll.Stop()
	for held(h.dir()) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	now, err := look(h.home, h.info.Name)
	if errors.Is(err, ErrNotFound) {
		return nil // it was ephemeral
	}
	if err == nil && now.status == StatusCrashed {
		return &CrashError{Reason: now.reason}
	}
	return err
}

var errRemote = fmt.Errorf("%w: the sandbox runs in another process", ErrUnsupported)
