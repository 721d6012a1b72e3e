package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"time"

	"github.com/hutchvm/hutch/internal/kvmprobe"
)

// Create boots a sandbox and returns when it takes commands. The name is 1 to
// 128 letters, digits, '.', '_' and '-', the first a letter or digit; of
// several creates of one name, in any number of processes, exactly one
// succeeds and the others get ErrAlreadyExists. Cancelling ctx before Create
// returned leaves nothing behind; afterwards it has no effect. A process that
// is killed in Create leaves what the next one removes.
//
// Unless it is ephemeral, the sandbox is kept when it ends: its record, which
// holds all options, its environment included, in a file that only the owner
// may read, and its writable disk. [Start] boots it again, [Remove] deletes it.
func Create(ctx context.Context, name string, opts ...Option) (*Sandbox, error) {
	begin := time.Now()
	c, err := resolve(name, opts)
	if err != nil {
		return nil, newOpError("create", name, err)
	}
	s := newSandbox(c)
	if err := s.create(ctx, begin); err != nil {
		return nil, newOpError("create", name, err)
	}
	return s, nil
}

func newSandbox(c *config) *Sandbox {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sandbox{name: c.Name, cfg: c, status: StatusRunning, console: &consoleLog{}, ended: make(chan struct{})}
	s.idle.L = &s.mu
	return s
}

func (s *Sandbox) create(ctx context.Context, begin time.Time) (err error) {
	c := s.cfg
	if err := c.possible(ctx); err != nil {
		return err
	}
	if c.Replace {
		if err := c.replace(ctx); err != nil {
			return err
		}
	}
	s.info = &info{
		Version: infoVersion, Name: c.Name, Status: StatusCreated, PID: os.Getpid(), Created: time.Now().UTC(),
		Labels: maps.Clone(c.Labels), Config: c,
	}
	if s.record, err = claim(c.Home, s.info); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.record.remove())
		}
	}()
	return s.bringUp(ctx, begin)
}

// possible tells whether there is any sense in trying.
func (c *config) possible(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if probe := kvmprobe.Probe(); !probe.Usable && c.KVMDevice == "" {
		return noKVM(probe)
	}
	return nil
}

// noKVM is the error for a host whose KVM is not usable.
func noKVM(r kvmprobe.Result) error {
	if r.Reason == kvmprobe.Platform {
		return fmt.Errorf("%w: %w", ErrUnsupported, r.Error())
	}
	return fmt.Errorf("%w: %w", ErrNoKVM, r.Error())
}
