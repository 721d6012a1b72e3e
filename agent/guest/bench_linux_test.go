package guest

import (
	"io"
	"strconv"
	"testing"

	"github.com/hutchvm/hutch/agent/proto"
)

func BenchmarkExec(b *testing.B) {
	a := newAgent(b, newServer(b, Defaults{}))
	for _, bb := range []struct {
		name string
		req  proto.Exec
	}{
		{"plain", proto.Exec{Argv: []string{"true"}}},
		{"user", proto.Exec{Argv: []string{"true"}, User: "4321:8765"}},
		{"limited", proto.Exec{Argv: []string{"true"}, Rlimits: []proto.Rlimit{{Resource: 7, Soft: 64, Hard: 64}}}},
		{"tty", proto.Exec{Argv: []string{"true"}, TTY: true}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				run(b, a, &bb.req)
			}
		})
	}
}

func BenchmarkStdout(b *testing.B) {
	a := newAgent(b, newServer(b, Defaults{}))
	b.SetBytes(proto.MaxData)
	b.ReportAllocs()
	p, err := a.Exec(b.Context(), &proto.Exec{Argv: []string{"head", "-c", strconv.Itoa(b.N * proto.MaxData), "/dev/zero"}})
	if err != nil {
		b.Fatal(err)
	}
	for err == nil {
		_, err = p.Next()
	}
	if err != io.EOF {
		b.Fatal(err)
	}
}

func BenchmarkStdin(b *testing.B) {
	a := newAgent(b, newServer(b, Defaults{}))
	b.SetBytes(proto.MaxData)
	b.ReportAllocs()
	p, err := a.Exec(b.Context(), &proto.Exec{Argv: []string{"sh", "-c", "exec cat >/dev/null"}, Stdin: true})
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		p.Stdin().ReadFrom(io.LimitReader(zero{}, int64(b.N)*proto.MaxData))
		p.Stdin().Close()
	}()
	for err == nil {
		_, err = p.Next()
	}
	if err != io.EOF {
		b.Fatal(err)
	}
}
