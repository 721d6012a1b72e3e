package argv

import (
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"uname -sr", "-s -r"},
		{"uname -a", "-a"},
		{"uname -sZ", "-sZ"},
		{"head -3 file", "-n 3 file"},
		{"head -n3 file", "-n 3 file"},
		{"head -n 3 -c 4", "-n 3 -c 4"},
		{"tail -fn 5 x", "-f -n 5 x"},
		{"tail -n +2 x", "-n +2 x"},
		{"head -n -1 x", "-n -1 x"},
		{"ln -sf -- -a b", "-s -f -- -a b"},
		{"seq -s , 3", "-s , 3"},
		{"seq -1 3", "-1 3"},
		{"wc -", "-"},
		{"other -abc", "-abc"},
		{"df", ""},
	} {
		f := strings.Fields(tc.in)
		if got := strings.Join(normalize(f[0], f[1:]), " "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.in, got, tc.want)
		}
	}
}
