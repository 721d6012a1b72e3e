package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/agent/proto"
)

// pipes dials the guest that play plays.
func pipes(play func(peer)) Dialer {
	return func(context.Context) (net.Conn, error) {
		host, guest := net.Pipe()
		go func() {
			defer guest.Close()
			play(peer{guest, proto.NewReader(guest)})
		}()
		return host, nil
	}
}

// plays is a guest that takes one Exec and then says what it is told.
func plays(say ...[]byte) Dialer {
	return pipes(func(g peer) {
		if g.Handshake() != nil {
			return
		}
		g.Next()
		g.say(proto.AppendHandshake(nil), bytes.Join(say, nil))
	})
}

var exec = &proto.Exec{Argv: []string{"x"}, Stdin: true}

func TestEvents(t *testing.T) {
	big := strings.Repeat("x", proto.MaxData)
	a, _ := newAgent(t, plays(framesOf(t, &proto.Started{PID: 42}), data(proto.TypeStdout, "out"), data(proto.TypeStderr, big),
		framesOf(t, &proto.StdinError{Errno: 32}, &proto.Exited{Code: 3, UserTime: 5})))
	p, err := a.Exec(t.Context(), exec)
	if err != nil {
		t.Fatal(err)
	}
	if p.PID() != 42 {
		t.Errorf("pid %d", p.PID())
	}
	for i, want := range []Event{
		{Kind: EventStdout, Data: []byte("out")}, {Kind: EventStderr, Data: []byte(big)}, {Kind: EventStdinError, Errno: 32},
		{Kind: EventExited, Exit: proto.Exited{Code: 3, UserTime: 5}},
	} {
		got, err := p.Next()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("event %d: %v (-want +got):\n%s", i, err, diff)
		}
	}
	for range 2 {
		if _, err := p.Next(); err != io.EOF {
			t.Error(err)
		}
	}
	if err := p.Resize(1, 2); !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	if _, err := p.Stdin().Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestExecRefused(t *testing.T) {
	want := &proto.StartError{Kind: proto.StartNotFound, Errno: 2, Stage: proto.StageLookup, Message: "x"}
	a, _ := newAgent(t, plays(framesOf(t, want)))
	_, err := a.Exec(t.Context(), exec)
	var got *proto.StartError
	if !errors.As(err, &got) || !cmp.Equal(want, got) {
		t.Error(err)
	}
	broken := errors.New("no way")
	b, _ := newAgent(t, func(context.Context) (net.Conn, error) { return nil, broken })
	if _, err := b.Exec(t.Context(), exec); !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := b.Exec(t.Context(), &proto.Exec{Argv: []string{strings.Repeat("x", proto.MaxMessage)}}); !errors.Is(err, proto.ErrTooLarge) {
		t.Error(err)
	}
}

// Whatever the guest does wrong ends the process with the right error.
func TestHostileGuest(t *testing.T) {
	started := framesOf(t, &proto.Started{PID: 1})
	for name, tt := range map[string]struct {
		say  []byte
		want error
	}{
		"end before the start": {nil, ErrLost},
		"output before it":     {data(proto.TypeStdout, "x"), proto.ErrUnexpected},
		"end without an exit":  {started, ErrLost},
		"cut":                  {append(framesOf(t, &proto.Started{}), 1, 0, 0), ErrLost},
		"started twice":        {append(framesOf(t, &proto.Started{}), started...), proto.ErrUnexpected},
		"empty output":         {append(framesOf(t, &proto.Started{}), data(proto.TypeStdout, "")...), proto.ErrMalformed},
		"too much output":      {append(framesOf(t, &proto.Started{}), 0, 0, 1, 0, byte(proto.TypeStdout)), proto.ErrTooLarge},
		"credit from nowhere":  {framesOf(t, &proto.Started{}, &proto.StdinCredit{Bytes: 1}), proto.ErrTooLarge},
		"the host's frames":    {framesOf(t, &proto.Started{}, &proto.Signal{Number: 9}), proto.ErrUnexpected},
		"malformed exit":       {append(framesOf(t, &proto.Started{}), data(proto.TypeExited, "\x01")...), proto.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAgent(t, plays(tt.say))
			p, err := a.Exec(t.Context(), exec)
			if err == nil {
				_, err = p.Next()
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// The writer of stdin reads the connection when nobody is in Next, and leaves
// what Next returned last alone.
func TestStdinReadsCredit(t *testing.T) {
	const size = 4*proto.StdinWindow + 1000
	ln, err := net.Listen("tcp", "127.0.0.1:0") // unlike net.Pipe it buffers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		g := peer{conn, proto.NewReader(conn)}
		g.Handshake()
		g.Next()
		g.say(proto.AppendHandshake(nil), framesOf(t, &proto.Started{}), data(proto.TypeStdout, "keep me"))
		for got := 0; got < size; {
			typ, b, err := g.Next()
			if err != nil || typ != proto.TypeStdin {
				t.Errorf("type %d, %v", typ, err)
				return
			}
			got += len(b)
			g.say(framesOf(t, &proto.StdinCredit{Bytes: uint32(len(b))}))
		}
		if typ, _, err := g.Next(); typ != proto.TypeStdinClose || err != nil {
			t.Errorf("type %d, %v", typ, err)
		}
		g.say(data(proto.TypeStdout, "bye"), framesOf(t, &proto.Exited{}))
	}()
	a, _ := newAgent(t, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	})
	p, err := a.Exec(t.Context(), exec)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := p.Next()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.Stdin().Write(make([]byte, size)); n != size || err != nil {
		t.Error(n, err)
	}
	if err := p.Stdin().Close(); err != nil {
		t.Error(err)
	}
	if got := string(kept.Data); got != "keep me" {
		t.Errorf("the last output became %q", got)
	}
	if ev, err := p.Next(); err != nil || string(ev.Data) != "bye" {
		t.Errorf("%q, %v", ev.Data, err)
	}
	if ev, err := p.Next(); ev.Kind != EventExited {
		t.Error(ev, err)
	}
}

func TestCancelUnblocks(t *testing.T) {
	a, _ := newAgent(t, pipes(func(g peer) {
		g.Handshake()
		g.Next()
		g.say(proto.AppendHandshake(nil), framesOf(t, &proto.Started{}))
		io.Copy(io.Discard, g.Conn) // takes all, grants nothing
	}))
	reason := errors.New("time is up")
	ctx, cancel := context.WithCancelCause(t.Context())
	p, err := a.Exec(ctx, exec)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := p.Stdin().Write(make([]byte, 2*proto.StdinWindow))
		wrote <- err
	}()
	next := make(chan error, 1)
	go func() {
		_, err := p.Next()
		next <- err
	}()
	cancel(reason)
	if err := <-wrote; !errors.Is(err, reason) {
		t.Error(err)
	}
	if err := <-next; !errors.Is(err, reason) {
		t.Error(err)
	}
}

// FuzzGuest plays a guest that says anything to a host that uses everything.
func FuzzGuest(f *testing.F) {
	f.Add([]byte{})
	f.Add(framesOf(f, &proto.Started{PID: 1}, &proto.Exited{Signal: 9}))
	f.Add(append(framesOf(f, &proto.Started{}), data(proto.TypeStdout, "x")...))
	f.Add(framesOf(f, &proto.Started{}, &proto.StdinError{Errno: 32}, &proto.StdinCredit{Bytes: 5}))
	f.Add(framesOf(f, &proto.StartError{Kind: 1}))
	f.Add(framesOf(f, &proto.Fault{Message: "m"}))
	a, _ := newAgent(f, nil)
	f.Fuzz(func(t *testing.T, in []byte) {
		b := &Agent{dial: plays(in), ended: a.ended}
		p, err := b.Exec(t.Context(), exec)
		if err != nil {
			return
		}
		defer p.Close()
		p.Stdin().Write([]byte("input"))
		for {
			if _, err := p.Next(); err != nil {
				return
			}
		}
	})
}

// FuzzControl plays an agent that says anything after its handshake.
func FuzzControl(f *testing.F) {
	hello := framesOf(f, &proto.Hello{Build: "b"})
	f.Add(hello)
	f.Add(append(hello, framesOf(f, &proto.SetupDone{}, &proto.Pong{ID: 1})...))
	f.Add(append(hello, framesOf(f, &proto.SetupError{Kind: 1, Field: "f"}, &proto.Fault{})...))
	f.Fuzz(func(t *testing.T, in []byte) {
		host, guest := net.Pipe()
		go io.Copy(io.Discard, guest)
		go func() {
			guest.Write(append(proto.AppendHandshake(nil), in...))
			guest.Close()
		}()
		a, err := New(t.Context(), host, nil)
		if err != nil {
			return
		}
		a.Setup(t.Context(), &proto.Setup{})
		a.Ping(t.Context())
		<-a.Done()
		a.Close()
	})
}
