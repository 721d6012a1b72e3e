package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

// script is a connection on which the guest says what it is told to.
type script struct {
	net.Conn // nil: what is not below is not used
	io.Reader
}

func (s script) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s script) Write(p []byte) (int, error) { return len(p), nil }
func (s script) Close() error                { return nil }
func (s script) SetDeadline(time.Time) error { return nil }

func dialScript(t testing.TB, b ...[]byte) (*Stream, error) {
	a := &Agent{dial: func(context.Context) (net.Conn, error) {
		return script{Reader: bytes.NewReader(bytes.Join(b, nil))}, nil
	}}
	return a.Dial(t.Context(), "tcp", "127.0.0.1:80")
}

func TestDialStream(t *testing.T) {
	dialed := framesOf(t, &proto.Dialed{Local: "127.0.0.1:1", Remote: "127.0.0.1:80"})
	s, err := dialScript(t, proto.AppendHandshake(nil), dialed, data(proto.TypeDialData, "hello "), data(proto.TypeDialData, ""), data(proto.TypeDialData, "world"), framesOf(t, &proto.DialEnd{}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "hello world" {
		t.Errorf("read %q, %v", got, err)
	}
	if s.LocalAddr().String() != "127.0.0.1:1" || s.RemoteAddr().String() != "127.0.0.1:80" || s.LocalAddr().Network() != "tcp" {
		t.Errorf("addresses %v, %v", s.LocalAddr(), s.RemoteAddr())
	}
	for want, end := range map[error][]byte{
		syscall.ECONNRESET:  framesOf(t, &proto.DialEnd{Errno: uint32(syscall.ECONNRESET)}),
		io.ErrUnexpectedEOF: nil,
		proto.ErrUnexpected: data(proto.TypeStdout, "x"),
		proto.ErrTooLarge:   {0xff, 0xff, 0xff, 0, byte(proto.TypeDialData)},
		proto.ErrMalformed:  data(proto.TypeDialEnd, "junk"),
	} {
		s, err := dialScript(t, proto.AppendHandshake(nil), dialed, data(proto.TypeDialData, "x"), end)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := io.ReadAll(s)
			var oe *net.OpError
			if !errors.Is(err, want) || !errors.As(err, &oe) || oe.Op != "read" {
				t.Errorf("read %q, %v; want %v", got, err, want)
			}
		}
	}
	for want, answer := range map[error][]byte{
		syscall.ECONNREFUSED: framesOf(t, &proto.DialError{Errno: uint32(syscall.ECONNREFUSED), Message: "m"}),
		ErrLost:              nil,
		proto.ErrUnexpected:  framesOf(t, &proto.Started{}),
		proto.ErrTooLarge:    data(proto.TypeDialed, string(make([]byte, 5000))),
	} {
		_, err := dialScript(t, proto.AppendHandshake(nil), answer)
		var oe *net.OpError
		if !errors.Is(err, want) || !errors.As(err, &oe) || oe.Op != "dial" {
			t.Errorf("dial: %v, want %v", err, want)
		}
	}
	if _, err := dialScript(t, []byte("notHutch")); !errors.Is(err, proto.ErrVersion) {
		t.Errorf("another protocol: %v", err)
	}
}

// FuzzDial takes the guest's bytes for the answer and the stream behind it.
func FuzzDial(f *testing.F) {
	dialed := framesOf(f, &proto.Dialed{Local: "127.0.0.1:1", Remote: "127.0.0.1:80"})
	f.Add(bytes.Join([][]byte{dialed, data(proto.TypeDialData, "hello"), framesOf(f, &proto.DialEnd{Errno: 104})}, nil))
	f.Add(framesOf(f, &proto.DialError{Errno: 111, Message: "m"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := dialScript(t, proto.AppendHandshake(nil), b)
		if err != nil {
			return
		}
		if n, err := io.Copy(io.Discard, s); n > int64(len(b)) {
			t.Fatalf("%d bytes out of %d, %v", n, len(b), err)
		}
	})
}
