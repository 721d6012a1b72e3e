package guest

import (
	"os"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/agent/client"
	"github.com/hutchvm/hutch/agent/proto"
)

// TestRestricted: a restricted command has no CAP_SYS_ADMIN, as root neither,
// and can gain nothing.
func TestRestricted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	a := newAgent(t, newServer(t, Defaults{Restricted: true}))
	p, err := a.Exec(t.Context(), &proto.Exec{Argv: []string{"sh", "-c", "grep -E '^(NoNewPrivs|Cap(Bnd|Eff|Prm))' /proc/self/status"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var out strings.Builder
	for {
		ev, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == client.EventExited {
			break
		}
		out.Write(ev.Data)
	}
	got := out.String()
	if !strings.Contains(got, "NoNewPrivs:\t1") {
		t.Errorf("the command says\n%s", got)
	}
	const sysAdmin = 1 << 21
	for line := range strings.Lines(got) {
		name, hex, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if !strings.HasPrefix(name, "Cap") {
			continue
		}
		var caps uint64
		for _, c := range hex {
			caps = caps<<4 | uint64(strings.IndexRune("0123456789abcdef", c))
		}
		if caps == 0 || caps&sysAdmin != 0 {
			t.Errorf("%s is %x", name, caps)
		}
	}
}
