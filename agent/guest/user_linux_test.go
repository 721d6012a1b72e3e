package guest

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testAccounts(t testing.TB, passwd, group string) accounts {
	dir := t.TempDir()
	a := accounts{passwd: dir + "/passwd", group: dir + "/group"}
	if err := os.WriteFile(a.passwd, []byte(passwd), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.group, []byte(group), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestResolve(t *testing.T) {
	a := testAccounts(t, `root:x:0:0:root:/root:/bin/sh
# a comment
broken line
bad:x:nan:0::/:/bin/sh
alice:x:1000:1000:Alice,,,:/home/alice:/bin/sh
`+strings.Repeat("x", 3*maxAccountLine)+`
bob:x:1001:100::/home/bob:/bin/sh
1000:x:1002:1002::/home/digits:/bin/sh
nohome:x:1003:1003:::/bin/sh
twin:x:1001:7::/home/twin:/bin/sh
max:x:4294967295:0::/:
last:x:1004:1004::/home/last:/bin/sh`, `root:x:0:
users:x:100:alice,bob
wheel:x:10:bob,alice
alice:x:1000:alice
other:x:11:alicex,xalice
1000:x:77:
bad:x:nan:alice`)
	for _, tt := range []struct {
		spec string
		want identity
		err  error
	}{
		{"", identity{0, 0, nil, "/root"}, nil},
		{"root", identity{0, 0, nil, "/root"}, nil},
		{"0", identity{0, 0, nil, "/root"}, nil},
		{"alice", identity{1000, 1000, []uint32{100, 10}, "/home/alice"}, nil},
		{"bob", identity{1001, 100, []uint32{10}, "/home/bob"}, nil},
		{"1001", identity{1001, 100, []uint32{10}, "/home/bob"}, nil}, // the first with that number
		{"1000", identity{1002, 1002, nil, "/home/digits"}, nil},      // a name before a number
		{"nohome", identity{1003, 1003, nil, "/"}, nil},
		{"last", identity{1004, 1004, nil, "/home/last"}, nil},
		{"alice:wheel", identity{1000, 10, nil, "/home/alice"}, nil},
		{"alice:5", identity{1000, 5, nil, "/home/alice"}, nil},
		{"alice:1000", identity{1000, 77, nil, "/home/alice"}, nil},
		{"5:6", identity{5, 6, nil, "/"}, nil},
		{"5", identity{5, 0, nil, "/"}, nil},
		{"5:wheel", identity{5, 10, nil, "/"}, nil},
		{"nobody", identity{}, errUnknownUser},
		{"bad", identity{}, errUnknownUser},
		{"max", identity{}, errUnknownUser},
		{"4294967295", identity{}, errUnknownUser},
		{"-1", identity{}, errUnknownUser},
		{"+1", identity{}, errUnknownUser},
		{"alice:nogroup", identity{}, errUnknownGroup},
		{"alice:", identity{}, errBadUserSpec},
		{":wheel", identity{}, errBadUserSpec},
		{":", identity{}, errBadUserSpec},
		{"alice:wheel:x", identity{}, errUnknownGroup},
		{"alice\nroot", identity{}, errBadUserSpec},
	} {
		got, err := a.resolve(tt.spec)
		if !errors.Is(err, tt.err) {
			t.Errorf("%q: %v, want %v", tt.spec, err, tt.err)
		} else if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(identity{})); diff != "" && err == nil {
			t.Errorf("%q (-want +got):\n%s", tt.spec, diff)
		}
	}
}

func TestResolveWithoutFiles(t *testing.T) {
	a := accounts{passwd: "/nonexistent/passwd", group: "/nonexistent/group"}
	for spec, want := range map[string]identity{"": {home: "/root"}, "0": {home: "/root"}, "7:8": {uid: 7, gid: 8, home: "/"}} {
		if got, err := a.resolve(spec); err != nil || !cmp.Equal(got, want, cmp.AllowUnexported(identity{})) {
			t.Errorf("%q: %+v, %v", spec, got, err)
		}
	}
	if _, err := a.resolve("root"); !errors.Is(err, errUnknownUser) {
		t.Error(err)
	}
}

// The number of groups is the kernel's, the length of the files ours.
func TestResolveBounds(t *testing.T) {
	var group strings.Builder
	for i := range maxGroups + 10 {
		group.WriteString("g:x:" + strconv.Itoa(i+2) + ":u\n")
	}
	passwd := "u:x:1:1::/:\n" + strings.Repeat("\n", maxAccountFile) + "late:x:2:2::/:\n"
	a := testAccounts(t, passwd, group.String())
	id, err := a.resolve("u")
	if err != nil || len(id.groups) != maxGroups {
		t.Errorf("%d groups, %v", len(id.groups), err)
	}
	if _, err := a.resolve("late"); !errors.Is(err, errUnknownUser) {
		t.Errorf("beyond the bound: %v", err)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("a:x:1:2::/h:/s\n", "g:x:3:a,b\n", "a:g")
	f.Add("\n:::::::\n", ":::", "1")
	f.Fuzz(func(t *testing.T, passwd, group, spec string) {
		id, err := testAccounts(t, passwd, group).resolve(spec)
		if err == nil && (id.uid == ^uint32(0) || id.gid == ^uint32(0) || id.home == "") {
			t.Errorf("%+v", id)
		}
	})
}
