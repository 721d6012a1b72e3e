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
		{"uniq -cf3 file", "-c -f 3 file"},
		{"uniq -c -f 3 -i", "-c -f 3 -i"},
		{"truncate -cs +2 x", "-c -s +2 x"},
		{"readlink -fn -- -a b", "-f -n -- -a b"},
		{"seq -s , 3", "-s , 3"},
		{"seq -1 3", "-1 3"},
		{"uniq -", "-"},
		{"other -abc", "-abc"},
		{"umount", ""},
	} {
		f := strings.Fields(tc.in)
		if got := strings.Join(normalize(f[0], f[1:]), " "); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.in, got, tc.want)
		}
	}
}
