package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hutchvm/hutch/agent/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func framesOf(t testing.TB, messages ...proto.Message) (b []byte) {
	t.Helper()
	for _, m := range messages {
		var err error
		if b, err = proto.AppendFrame(b, m); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func data(typ proto.Type, payload string) []byte {
	b := make([]byte, proto.FrameHeaderSize, proto.FrameHeaderSize+len(payload))
	proto.PutHeader(b, typ, len(payload))
	return append(b, payload...)
}

// peer is the guest's end of a connection, played by a test.
type peer struct {
	net.Conn
	*proto.Reader
}

func (p peer) say(b ...[]byte) { p.Write(bytes.Join(b, nil)) }

// newAgent returns an Agent and its control connection's other end.
func newAgent(t testing.TB, dial Dialer) (*Agent, peer) {
	t.Helper()
	host, guest := net.Pipe()
	g := peer{guest, proto.NewReader(guest)}
	ready := make(chan error, 1)
	go func() {
		g.say(proto.AppendHandshake(nil), framesOf(t, &proto.Hello{Build: "b", Boot: proto.BootStamps{Init: 1, Mounted: 2, Connected: 3}}))
		ready <- g.Handshake()
	}()
	a, err := New(t.Context(), host, dial)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close(); a.Close() })
	return a, g
}

// answer reads one request and says something.
func (p peer) answer(t testing.TB, want proto.Type, b ...[]byte) {
	typ, _, err := p.Next()
	if err != nil || typ != want {
		t.Errorf("request %d, %v; want %d", typ, err, want)
	}
	p.say(b...)
}

func TestAccept(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.Write(append(proto.AppendHandshake(nil), framesOf(t, &proto.Hello{Build: "x"})...))
		io.Copy(io.Discard, conn)
	}()
	a, err := Accept(t.Context(), ln, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Hello().Build; got != "x" {
		t.Errorf("build %q", got)
	}
	a.Close()
	a.Close()
	<-a.Done()
	if !errors.Is(a.Err(), ErrClosed) {
		t.Error(a.Err())
	}

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := Accept(ctx, ln, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestHelloRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []byte
		want error
	}{
		"another protocol": {[]byte("SSH-2.0-x\r\n"), proto.ErrVersion},
		"another frame":    {append(proto.AppendHandshake(nil), framesOf(t, &proto.Pong{})...), proto.ErrUnexpected},
		"malformed":        {append(proto.AppendHandshake(nil), data(proto.TypeHello, "\xff")...), proto.ErrMalformed},
		"nothing":          {nil, ErrLost},
		"half":             {proto.AppendHandshake(nil), ErrLost},
	} {
		host, guest := net.Pipe()
		go func() { guest.Write(tt.in); guest.Close() }()
		if _, err := New(t.Context(), host, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	host, guest := net.Pipe()
	defer guest.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, host, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestControl(t *testing.T) {
	a, g := newAgent(t, nil)
	if diff := cmp.Diff(proto.BootStamps{Init: 1, Mounted: 2, Connected: 3}, a.Boot()); diff != "" {
		t.Errorf("boot (-want +got):\n%s", diff)
	}
	go g.answer(t, proto.TypeSetup, framesOf(t, &proto.SetupDone{Received: 4, Rooted: 5, Done: 6}))
	done, err := a.Setup(t.Context(), &proto.Setup{Hostname: "h"})
	if diff := cmp.Diff(proto.SetupDone{Received: 4, Rooted: 5, Done: 6}, done); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	go g.answer(t, proto.TypePing, framesOf(t, &proto.Pong{ID: 1}))
	if err := a.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	go g.answer(t, proto.TypeShutdown, framesOf(t, &proto.ShutdownDone{Killed: true}))
	if down, err := a.Shutdown(t.Context(), time.Second); err != nil || !down.Killed {
		t.Error(down, err)
	}
	<-a.Done()
	if err := a.Ping(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestSetupError(t *testing.T) {
	a, g := newAgent(t, nil)
	want := &proto.SetupError{Kind: proto.SetupWorkdir, Field: "Workdir", Message: "/nope: no such file or directory"}
	go g.answer(t, proto.TypeSetup, framesOf(t, want))
	_, err := a.Setup(t.Context(), &proto.Setup{})
	var got *proto.SetupError
	if !errors.As(err, &got) || !cmp.Equal(want, got) {
		t.Error(err)
	}
}

// An answer that comes after its caller has gone is not taken for another's.
func TestLateAnswer(t *testing.T) {
	a, g := newAgent(t, nil)
	asked := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		g.Next()
		close(asked)
	}()
	go func() { <-asked; cancel() }()
	if err := a.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	go g.answer(t, proto.TypePing, framesOf(t, &proto.Pong{ID: 1}, &proto.Pong{ID: 2}))
	if err := a.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestControlBreaks(t *testing.T) {
	for name, tt := range map[string]struct {
		say  []byte
		want error
	}{
		"end":               {nil, ErrLost},
		"wrong answer":      {framesOf(t, &proto.ShutdownDone{}), proto.ErrUnexpected},
		"wrong ping":        {framesOf(t, &proto.Pong{ID: 9}), proto.ErrUnexpected},
		"malformed answer":  {data(proto.TypePong, "\x01"), proto.ErrMalformed},
		"oversized":         {[]byte{0xff, 0xff, 0xff, 0xff, byte(proto.TypePong)}, proto.ErrTooLarge},
		"two for one":       {framesOf(t, &proto.Pong{ID: 1}, &proto.Pong{ID: 1}), nil},
		"fault of the peer": {framesOf(t, &proto.Fault{Message: "you"}), new(proto.Fault)},
	} {
		t.Run(name, func(t *testing.T) {
			a, g := newAgent(t, nil)
			go func() {
				g.answer(t, proto.TypePing, tt.say)
				g.Close()
			}()
			err := a.Ping(t.Context())
			var fault *proto.Fault
			if _, ok := tt.want.(*proto.Fault); ok != errors.As(err, &fault) || !ok && !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			<-a.Done()
			if a.Err() == nil {
				t.Error("no reason")
			}
		})
	}
}

// A guest that answers nothing does not make the host queue without end.
func TestStalled(t *testing.T) {
	a, g := newAgent(t, nil)
	go io.Copy(io.Discard, g.Conn)
	sent := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		err := a.Ping(ctx)
		cancel()
		if errors.Is(err, ErrStalled) {
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if sent++; sent > 100*maxWaiting {
			t.Fatal("no end") // one that timed out before it went out does not count
		}
	}
	if sent < maxWaiting {
		t.Errorf("refused after %d", sent)
	}
}

// A guest that does not even read: a request of which nothing went out fails
// alone, one that was cut spoils the connection.
func TestUnread(t *testing.T) {
	a, g := newAgent(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := a.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	go g.answer(t, proto.TypePing, framesOf(t, &proto.Pong{ID: 2}))
	if err := a.Ping(t.Context()); err != nil {
		t.Errorf("after a request that did not go out: %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go func() {
		g.Conn.Read(make([]byte, 100))
		cancel()
	}()
	if _, err := a.Setup(ctx, &proto.Setup{Env: make([]string, 1000)}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-a.Done()
}
