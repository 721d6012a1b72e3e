package sandbox

import (
	"context"
	"errors"
	"os"
	"time"
)

// Start boots a sandbox that has stopped or crashed, from the configuration
// that Create saved, the very image it was made of, and its writable disk, and
// returns when it takes commands. Options change the saved configuration, as
// far as they do not say what the root file system is made of; credentials and
// loggers are not saved and have to be given again where they are needed.
//
// The errors are ErrNotFound, ErrStillRunning for one that runs, in this
// process or another, and those of Create. Cancelling ctx before Start returned
// stops the sandbox again.
func Start(ctx context.Context, name string, opts ...Option) (*Sandbox, error) {
	begin := time.Now()
	s, err := start(ctx, begin, name, opts)
	if err != nil {
		return nil, newOpError("start", name, err)
	}
	return s, nil
}

func start(ctx context.Context, begin time.Time, name string, opts []Option) (_ *Sandbox, err error) {
	at, err := resolve(name, opts) // for its home, and checked as a whole
	if err != nil {
		return nil, err
	}
	if err := at.possible(ctx); err != nil {
		return nil, err
	}
	rec, before, err := openNamed(at.Home, name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rec.close())
		}
	}()
	c, err := before.reconfigure(at.Home, opts)
	if err != nil {
		return nil, err
	}
	s := newSandbox(c)
	s.record = rec
	i := *before
	i.Config, i.Status, i.Reason, i.PID, i.Ended, i.Ports = c, StatusStarting, "", os.Getpid(), time.Time{}, nil
	s.info = &i
	if err := rec.write(s.info); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rec.write(before))
		}
	}()
	return s, s.bringUp(ctx, begin)
}

// reconfigure applies the options of Start to the saved configuration.
func (i *info) reconfigure(home string, opts []Option) (*config, error) {
	copied, err := i.clone()
	if err != nil {
		return nil, err
	}
	c, saved := copied.Config, i.Config
	c.Name, c.Home, c.ReplaceTimeout = i.Name, home, stopTimeout
	if err := c.apply(opts); err != nil {
		return nil, err
	}
	switch {
	case c.Image != saved.Image:
		return nil, invalid("WithImage", "the sandbox was created with another one")
	case c.FSType != saved.FSType:
		return nil, invalid("WithFSType", "the sandbox was created with another one")
	case len(c.Patches) > 0:
		return nil, invalid("WithPatches", "the root has been made already")
	case c.upperSize() < saved.upperSize():
		return nil, invalid("WithOCIUpperSize", "%d bytes: the disk has %d and cannot shrink", c.upperSize(), saved.upperSize())
	case c.Ephemeral:
		return nil, invalid("WithEphemeral", "the sandbox has been kept already; remove it afterwards")
	case c.Replace:
		return nil, invalid("WithReplace", "it is an option of Create")
	}
	return c, nil
}
