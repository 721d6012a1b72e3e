package main

import (
	"errors"
	"math"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/glob"
	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/mode"
)

// tests are the parts of an expression that have a value.
var tests = map[string]func(p *parser, value string) (node, error){
	"-name": func(_ *parser, v string) (node, error) {
		return func(f *file) bool { return glob.Match(v, f.name()) }, nil
	},
	"-iname": func(_ *parser, v string) (node, error) {
		v = strings.ToLower(v)
		return func(f *file) bool { return glob.Match(v, strings.ToLower(f.name())) }, nil
	},
	"-path":      path,
	"-wholename": path,
	"-ipath": func(_ *parser, v string) (node, error) {
		v = strings.ToLower(v)
		return func(f *file) bool { return glob.Match(v, strings.ToLower(f.path)) }, nil
	},
	"-type":     kind,
	"-size":     size,
	"-perm":     perm,
	"-newer":    newer,
	"-mtime":    age(24*time.Hour, func(st *unix.Stat_t) unix.Timespec { return st.Mtim }),
	"-mmin":     age(time.Minute, func(st *unix.Stat_t) unix.Timespec { return st.Mtim }),
	"-atime":    age(24*time.Hour, func(st *unix.Stat_t) unix.Timespec { return st.Atim }),
	"-amin":     age(time.Minute, func(st *unix.Stat_t) unix.Timespec { return st.Atim }),
	"-ctime":    age(24*time.Hour, func(st *unix.Stat_t) unix.Timespec { return st.Ctim }),
	"-cmin":     age(time.Minute, func(st *unix.Stat_t) unix.Timespec { return st.Ctim }),
	"-links":    count(func(st *unix.Stat_t) int64 { return int64(st.Nlink) }),
	"-inum":     count(func(st *unix.Stat_t) int64 { return int64(st.Ino) }),
	"-uid":      count(func(st *unix.Stat_t) int64 { return int64(st.Uid) }),
	"-gid":      count(func(st *unix.Stat_t) int64 { return int64(st.Gid) }),
	"-user":     owner,
	"-group":    group,
	"-maxdepth": func(p *parser, v string) (node, error) { return depth(&p.w.maxDepth, v) },
	"-mindepth": func(p *parser, v string) (node, error) { return depth(&p.w.minDepth, v) },
	"-printf": func(p *parser, v string) (node, error) {
		p.action = true
		return p.w.printf(v), nil
	},
}

func path(_ *parser, v string) (node, error) {
	return func(f *file) bool { return glob.Match(v, f.path) }, nil
}

func depth(limit *int, v string) (node, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return nil, errors.New("not a depth")
	}
	*limit = n
	return always, nil
}

func kind(_ *parser, v string) (node, error) {
	want := map[uint32]bool{}
	for letter := range strings.SplitSeq(v, ",") {
		bits, ok := map[string]uint32{
			"f": unix.S_IFREG, "d": unix.S_IFDIR, "l": unix.S_IFLNK, "b": unix.S_IFBLK, "c": unix.S_IFCHR, "p": unix.S_IFIFO, "s": unix.S_IFSOCK,
		}[letter]
		if !ok {
			return nil, errors.New("not a type")
		}
		want[bits] = true
	}
	return func(f *file) bool { return want[f.st.Mode&unix.S_IFMT] }, nil
}

// size compares in units, rounded up.
func size(_ *parser, v string) (node, error) {
	unit := int64(512)
	if n := len(v); n > 0 {
		if u, ok := map[byte]int64{'c': 1, 'w': 2, 'b': 512, 'k': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}[v[n-1]]; ok {
			unit, v = u, v[:n-1]
		}
	}
	is, err := number(v)
	return func(f *file) bool { return is((f.st.Size + unit - 1) / unit) }, err
}

func perm(_ *parser, v string) (node, error) {
	how := byte(0)
	if v != "" && (v[0] == '-' || v[0] == '/') {
		how, v = v[0], v[1:]
	}
	change, err := mode.Parse(v, 0)
	if err != nil {
		return nil, err
	}
	want := change(0, false)
	return func(f *file) bool {
		got := f.st.Mode & 0o7777
		switch how {
		case '-':
			return got&want == want
		case '/':
			return want == 0 || got&want != 0
		}
		return got == want
	}, nil
}

func newer(_ *parser, v string) (node, error) {
	info, err := os.Stat(v)
	if err != nil {
		return nil, err
	}
	than := info.ModTime()
	return func(f *file) bool { return time.Unix(f.st.Mtim.Unix()).After(than) }, nil
}

// age counts whole units since a time of the file.
func age(unit time.Duration, of func(*unix.Stat_t) unix.Timespec) func(*parser, string) (node, error) {
	return func(_ *parser, v string) (node, error) {
		is, err := number(v)
		now := time.Now()
		return func(f *file) bool {
			ts := of(&f.st)
			units := float64(now.Sub(time.Unix(ts.Unix()))) / float64(unit)
			return is(int64(math.Floor(units)))
		}, err
	}
}

func count(of func(*unix.Stat_t) int64) func(*parser, string) (node, error) {
	return func(_ *parser, v string) (node, error) {
		is, err := number(v)
		return func(f *file) bool { return is(of(&f.st)) }, err
	}
}

func owner(_ *parser, v string) (node, error) {
	if u, err := user.Lookup(v); err == nil {
		v = u.Uid
	}
	id, err := strconv.ParseUint(v, 10, 32)
	return func(f *file) bool { return uint64(f.st.Uid) == id }, err
}

func group(_ *parser, v string) (node, error) {
	if g, err := user.LookupGroup(v); err == nil {
		v = g.Gid
	}
	id, err := strconv.ParseUint(v, 10, 32)
	return func(f *file) bool { return uint64(f.st.Gid) == id }, err
}

func access(how uint32) node {
	return func(f *file) bool { return unix.Access(f.path, how) == nil }
}

func (w *walker) empty(f *file) bool {
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return f.st.Size == 0
	case unix.S_IFDIR:
		entries, err := os.ReadDir(f.path)
		return err == nil && len(entries) == 0
	}
	return false
}
