package guest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompleteHosts(t *testing.T) {
	const local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	for _, tt := range []struct{ name, old, want string }{
		{"none", "", local + "127.0.1.1\tbox\n"},
		{"kept", "10.0.0.1 db # box\n", "10.0.0.1 db # box\n" + local + "127.0.1.1\tbox\n"},
		{"no newline at the end", "10.0.0.1 db", "10.0.0.1 db\n" + local + "127.0.1.1\tbox\n"},
		{"complete", local + "127.0.1.1 other box\n", local + "127.0.1.1 other box\n"},
		{"partly", local, local + "127.0.1.1\tbox\n"},
	} {
		if diff := cmp.Diff(tt.want, completeHosts(tt.old, "box")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
