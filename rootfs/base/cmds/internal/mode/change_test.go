package mode

import "testing"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		spec  string
		old   uint32
		isDir bool
		want  uint32
	}{
		{"644", 0o777, false, 0o644},
		{"4755", 0, false, 0o4755},
		{"755", 0o2700, true, 0o2755},
		{"u+x", 0o644, false, 0o744},
		{"u+x,go-w", 0o666, false, 0o744},
		{"+x", 0o644, false, 0o755},
		{"+w", 0o444, false, 0o644}, // the umask here is 022
		{"a+w", 0o444, false, 0o666},
		{"=r", 0o777, false, 0o444},
		{"go=", 0o777, false, 0o700},
		{"a+X", 0o644, false, 0o644},
		{"a+X", 0o644, true, 0o755},
		{"a+X", 0o744, false, 0o755},
		{"g=u", 0o740, false, 0o770},
		{"o=g-w", 0o670, false, 0o675},
		{"u+s", 0o755, false, 0o4755},
		{"+t", 0o777, true, 0o1777},
		{"u=rwx,g=rx,o=", 0, false, 0o750},
		{"a-x+r", 0o111, false, 0o444},
	} {
		change, err := Parse(c.spec, 0o22)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
		} else if got := change(c.old, c.isDir); got != c.want {
			t.Errorf("%s of %o: got %o, want %o", c.spec, c.old, got, c.want)
		}
	}
	for _, spec := range []string{"", "u", "8", "77777", "u+q", "x+u", "u+x,"} {
		if _, err := Parse(spec, 0); err == nil {
			t.Errorf("%q: no error", spec)
		}
	}
}
