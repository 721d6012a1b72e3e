//go:build unix

package sandbox

import (
	"errors"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// terminalInput reads a terminal and, unlike a plain read, can be stopped: so
// no goroutine is left that would swallow the next key typed.
type terminalInput struct {
	tty        *os.File
	wake, done *os.File // a pipe whose writing end is closed to stop
}

func newTerminalInput(tty *os.File) (*terminalInput, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &terminalInput{tty: tty, wake: r, done: w}, nil
}

func (t *terminalInput) Read(p []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(t.tty.Fd()), Events: unix.POLLIN}, {Fd: int32(t.wake.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if fds[1].Revents != 0 {
			t.wake.Close()
			return 0, io.EOF
		}
		return t.tty.Read(p)
	}
}

func (t *terminalInput) stop() { t.done.Close() }

// watchSize calls fn whenever the terminal's size changes, until its result is called.
func watchSize(fn func()) (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGWINCH)
	quit := make(chan struct{})
	go func() {
		for {
			select {
			case <-c:
				fn()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(quit)
	}
}
