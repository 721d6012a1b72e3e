package guest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hutchvm/hutch/agent/proto"
)

func frameOf(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.AppendFrame(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rawFrame(typ proto.Type, payload string) []byte {
	b := make([]byte, proto.FrameHeaderSize, proto.FrameHeaderSize+len(payload))
	proto.PutHeader(b, typ, len(payload))
	return append(b, payload...)
}

// converse sends bytes to a server and returns the types of its answers and
// its fault, if any.
func converse(t testing.TB, s *Server, in []byte) (types []proto.Type, fault error) {
	host, guest := socketpair(t)
	defer host.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Handle(guest)
	}()
	go host.Write(in)
	host.SetReadDeadline(time.Now().Add(20 * time.Second))
	r := proto.NewReader(host)
	err := r.Handshake()
	for err == nil {
		var typ proto.Type
		var payload []byte
		if typ, payload, err = r.Next(); err == nil {
			types = append(types, typ)
			if typ == proto.TypeFault {
				m := new(proto.Fault)
				if err := proto.Unmarshal(payload, m); err != nil {
					t.Error(err)
				}
				fault = m
			}
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the server hangs")
	}
	host.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the server goes on without a host")
	}
	return types, fault
}

// A host that breaks the protocol is told so, and its command is killed.
func TestViolations(t *testing.T) {
	s := newServer(t, Defaults{})
	hello := proto.AppendHandshake(nil)
	cat := slices.Concat(hello, frameOf(t, &proto.Exec{Argv: []string{"cat"}, Stdin: true}))
	sleep := slices.Concat(hello, frameOf(t, &proto.Exec{Argv: []string{"sleep", "1000"}, Stdin: true}))
	full := rawFrame(proto.TypeStdin, string(make([]byte, proto.MaxData)))
	for _, tt := range []struct {
		name string
		in   []byte
		want proto.Type // the last answer; 0: none
	}{
		{"no handshake", []byte("GET / HTTP/1.1\r\n\r\n"), 0},
		{"no operation", slices.Concat(hello, frameOf(t, &proto.Ping{})), proto.TypeFault},
		{"malformed operation", slices.Concat(hello, rawFrame(proto.TypeExec, "\xff")), proto.TypeFault},
		{"oversized operation", slices.Concat(hello, []byte{0xff, 0xff, 0xff, 0xff, byte(proto.TypeExec)}), proto.TypeFault},
		{"unknown frame", slices.Concat(cat, rawFrame(99, "")), proto.TypeFault},
		{"oversized frame", slices.Concat(cat, []byte{0, 0, 1, 0, byte(proto.TypeStdin)}), proto.TypeFault},
		{"second operation", slices.Concat(cat, cat[proto.HandshakeSize:]), proto.TypeFault},
		{"the guest's frames", slices.Concat(cat, frameOf(t, &proto.Exited{})), proto.TypeFault},
		{"signal 0", slices.Concat(cat, frameOf(t, &proto.Signal{})), proto.TypeFault},
		{"signal 200", slices.Concat(cat, frameOf(t, &proto.Signal{Number: 200})), proto.TypeFault},
		{"malformed signal", slices.Concat(cat, rawFrame(proto.TypeSignal, "\x01")), proto.TypeFault},
		{"no terminal", slices.Concat(cat, frameOf(t, &proto.Resize{Rows: 1, Cols: 1})), proto.TypeFault},
		{"beyond the window", slices.Concat(sleep, bytes.Repeat(full, 10)), proto.TypeFault},
		{"stdin after its end", slices.Concat(sleep, rawFrame(proto.TypeStdinClose, ""), rawFrame(proto.TypeStdin, "x")), proto.TypeFault},
		{"no end of stdin", cat, 0}, // waits: the host ends it
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "no end of stdin" {
				host, guest := socketpair(t)
				host.Write(tt.in)
				host.(interface{ CloseWrite() error }).CloseWrite()
				s.Handle(guest)
				host.Close()
				return
			}
			types, fault := converse(t, s, tt.in)
			var last proto.Type
			if len(types) > 0 {
				last = types[len(types)-1]
			}
			if last != tt.want || (fault != nil) != (tt.want == proto.TypeFault) {
				t.Errorf("answers %v, fault %v", types, fault)
			}
		})
	}
}

// FuzzHost plays a host that sends anything to a running command. The command
// is fixed: what may be started is not for a fuzzer to choose.
func FuzzHost(f *testing.F) {
	f.Add([]byte("x"), false)
	f.Add(rawFrame(proto.TypeStdin, "data"), false)
	f.Add(append(rawFrame(proto.TypeStdin, "data"), rawFrame(proto.TypeStdinClose, "")...), true)
	f.Add(frameOf(f, &proto.Signal{Number: 15}), false)
	f.Add(append(frameOf(f, &proto.Resize{Rows: 3, Cols: 4}), rawFrame(proto.TypeStdin, "\x03")...), true)
	s := NewServer(Defaults{})
	f.Cleanup(s.Close)
	f.Fuzz(func(t *testing.T, in []byte, tty bool) {
		host, guest := socketpair(t)
		begin := append(proto.AppendHandshake(nil), frameOf(t, &proto.Exec{Argv: []string{"cat"}, Stdin: true, TTY: tty})...)
		go func() {
			host.Write(append(begin, in...))
			host.(interface{ CloseWrite() error }).CloseWrite()
		}()
		go io.Copy(io.Discard, host)
		s.Handle(guest)
		host.Close()
	})
}
