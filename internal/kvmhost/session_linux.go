package kvmhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// session is the conversation with one host.
type session struct {
	config   *Config
	command  *wire.Command
	emulator *emulator
	begin    time.Time
	phases   Phases
	console  ring
	answered bool // the guest got its order
}

// bootPatience is how many times longer a silence may be while a host boots, when
// it cannot say anything.
const bootPatience = 3

// tail is what to show of the console after a failure.
func (s *session) tail() string {
	text := s.emulator.errText.tail()
	if c := s.console.tail(); c != "" {
		if text != "" {
			text += "\n"
		}
		text += c
	}
	return text
}

func (s *session) fail(op string, err error) error {
	return &Error{Op: op, Err: err, Console: s.tail()}
}

// run talks to the guest until the command has ended and all of its output is
// here, or something went wrong. All goroutines that it starts end when the
// emulator's channels do, except one that may be stuck in the caller's input.
func (s *session) run(ctx context.Context) (wire.Status, error) {
	var status wire.Status
	e := s.emulator
	consoleEnd := make(chan struct{})
	go func() {
		defer close(consoleEnd)
		to := io.Writer(&s.console)
		if s.config.Console != nil {
			to = io.MultiWriter(to, s.config.Console)
		}
		io.Copy(to, e.console)
	}()
	frames := make(chan wire.Frame)
	broken := make(chan error, 1)
	stop := make(chan struct{})
	defer close(stop)
	go receive(e.control, frames, broken, stop)

	outDone := copyOut(s.config.Stdout, e.stdout)
	errDone := copyOut(s.config.Stderr, e.stderr)
	orders := make(chan order)
	restore := func() {}
	defer func() { restore() }()

	signals := make(chan os.Signal, 16)
	if s.config.Signals {
		signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
		defer signal.Stop(signals)
	}

	// Silence is counted in ticks and not by the clock, so that a process that was
	// stopped for a while does not blame the guest.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	silent, nextHeal := 0, firstHealBoot
	if s.phases.Resumed {
		nextHeal = firstHeal
	}
	if s.phases.Resumed { // such a guest has said hello in its earlier life
		s.start()
	}
	for {
		select {
		case <-ctx.Done():
			return status, s.fail("run", context.Cause(ctx))
		case <-tick.C:
			limit := s.config.HangAfter
			if !s.answered {
				limit *= bootPatience
			}
			if silent++; silent >= nextHeal {
				nextHeal *= 2
				s.heal(silent)
			}
			if time.Duration(silent)*time.Second > limit {
				return status, s.fail("run", fmt.Errorf("%w for %v", ErrStopped, limit))
			}
		case err := <-broken:
			<-e.exited // so that all of QEMU's own words are here
			<-consoleEnd
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
				return status, s.fail("run", ErrDied)
			}
			return status, s.fail("run", err)
		case o := <-orders:
			if err := wire.Write(e.control, o.kind, o.payload); err != nil {
				continue // the reader finds out why
			}
		case sig := <-signals:
			if s.phases.Running == 0 && sig != syscall.SIGWINCH {
				// The command would have died of it; this is the earliest moment.
				return wire.Status{Code: CodeSignalBase + int(sig.(syscall.Signal))}, nil
			}
			s.forward(sig)
		case f := <-frames:
			silent, nextHeal = 0, firstHeal
			switch f.Type {
			case wire.Hello:
				s.start()
			case wire.Heartbeat:
				if !s.answered {
					s.answered = true
					s.phases.Ordered = time.Since(s.begin)
				}
			case wire.Started:
				s.phases.Running = time.Since(s.begin)
				s.setTiming(f)
				restore = s.config.rawTerminal(s.command)
				if s.command.Stdin != wire.Null {
					go feed(e.stdin, s.config.Stdin, orders, stop)
				}
			case wire.Exit:
				if err := f.Decode(&status); err != nil {
					return status, s.fail("run", err)
				}
				return status, s.collect(ctx, status, outDone, errDone)
			}
		}
	}
}

// heal tries to bring a silent host back.
func (s *session) heal(silent int) {
	if err := s.emulator.heal(); err != nil {
		fmt.Fprintf(&s.console, "\n[kvmhost: silent for %d s; dropping translations: %v]\n", silent, err)
		return
	}
	fmt.Fprintf(&s.console, "\n[kvmhost: silent for %d s; translations dropped]\n", silent)
	if s.config.Console != nil {
		fmt.Fprintf(s.config.Console, "kvmhost: silent for %d s; translations dropped\n", silent)
	}
}

// start gives the guest its order. That it fails is found out by the reader.
func (s *session) start() {
	s.command.Clock = time.Now().UnixNano()
	wire.Write(s.emulator.control, wire.Start, s.command)
}

func (s *session) setTiming(f wire.Frame) {
	var t wire.Timing
	if f.Decode(&t) == nil {
		for i, ns := range []int64{t.Init, t.Ready, t.Ordered, t.Mounted, t.Running} {
			s.phases.Guest[i] = time.Duration(ns)
		}
	}
}

// collect waits until the outputs have arrived and been taken.
func (s *session) collect(ctx context.Context, status wire.Status, out, errs *outlet) error {
	for _, o := range []struct {
		*outlet
		total int64
	}{{out, status.Stdout}, {errs, status.Stderr}} {
		select {
		case o.totals <- o.total:
		case <-o.done:
		}
		select {
		case <-o.done:
			if o.err != nil {
				return s.fail("output", o.err)
			}
		case <-ctx.Done():
			return s.fail("output", context.Cause(ctx))
		}
	}
	s.phases.Ended = time.Since(s.begin)
	return nil
}

// order is a frame that some goroutine wants to be sent.
type order struct {
	kind    wire.Type
	payload any
}

func receive(from io.Reader, frames chan<- wire.Frame, broken chan<- error, stop <-chan struct{}) {
	in := bufio.NewReader(from)
	for {
		f, err := wire.Read(in)
		if err != nil {
			broken <- err
			return
		}
		select {
		case frames <- f:
		case <-stop:
			return
		}
	}
}

// forward passes a signal on. A terminal's ^C and ^\ reach a whole process
// group, and the usual cause of these two is a terminal.
func (s *session) forward(sig os.Signal) {
	if sig == syscall.SIGWINCH {
		for _, stream := range []any{s.config.Stdin, s.config.Stdout, s.config.Stderr} {
			if size, ok := windowOf(terminalOf(stream)); ok {
				wire.Write(s.emulator.control, wire.Resize, size)
				return
			}
		}
		return
	}
	number := sig.(syscall.Signal)
	group := number == syscall.SIGINT || number == syscall.SIGQUIT
	wire.Write(s.emulator.control, wire.Signal, wire.SignalNumber{Number: int(number), Group: group})
}

// feed sends the caller's input and says where it ends.
func feed(to io.Writer, from io.Reader, orders chan<- order, stop <-chan struct{}) {
	var n int64
	if from != nil {
		n, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
	}
	select {
	case orders <- order{wire.StdinEOF, wire.Total{Bytes: n}}:
	case <-stop:
	}
}
