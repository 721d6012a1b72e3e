package guest

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of reading the account files, which belong to the image.
const (
	maxAccountFile = 4 << 20 // more is cut off
	maxAccountLine = 64 << 10
	maxGroups      = 65536 // Linux's NGROUPS_MAX
)

// errUnknownUser and errUnknownGroup: the name is not in the account files.
var (
	errUnknownUser  = errors.New("unknown user")
	errUnknownGroup = errors.New("unknown group")
	errBadUserSpec  = errors.New("not of the form user or user:group")
)

// identity is what a user spec resolves to.
type identity struct {
	uid, gid uint32
	groups   []uint32 // supplementary
	home     string
}

// accounts names the files that users are resolved from.
type accounts struct {
	passwd, group string
}

// resolve finds the identity of a spec: "name", "uid", "name:group" or
// "uid:gid"; "" is root. A name is looked for before a number is tried, as
// every other tool does. Numbers need not be in the files. Supplementary groups
// are those that list the user, unless a group is given.
func (a accounts) resolve(spec string) (identity, error) {
	user, group, hasGroup := strings.Cut(spec, ":")
	if spec == "" {
		user = "0"
	}
	if user == "" || hasGroup && group == "" || strings.ContainsAny(spec, "\n\x00") {
		return identity{}, errBadUserSpec
	}
	id := identity{home: "/"}
	name := ""
	known, err := a.findUser(user, &id, &name)
	if err != nil {
		return identity{}, err
	}
	if !known {
		uid, ok := parseID(user)
		if !ok {
			return identity{}, errUnknownUser
		}
		id.uid = uid
		if uid == 0 {
			id.home = "/root"
		}
	}
	if hasGroup {
		gid, err := a.findGroup(group)
		id.gid = gid
		return id, err
	}
	if name != "" {
		id.groups, err = a.groupsOf(name, id.gid)
	}
	return id, err
}

// findUser looks for an entry by name, or else by number.
func (a accounts) findUser(user string, id *identity, name *string) (bool, error) {
	number, numeric := parseID(user)
	found, byName := false, false
	err := eachLine(a.passwd, func(line string) bool {
		f := strings.SplitN(line, ":", 8)
		if len(f) < 7 || f[0] == "" {
			return true
		}
		uid, ok1 := parseID(f[2])
		gid, ok2 := parseID(f[3])
		if !ok1 || !ok2 {
			return true
		}
		byName = f[0] == user
		if byName || numeric && uid == number && !found {
			found = true
			*id = identity{uid: uid, gid: gid, home: f[5]}
			if f[5] == "" {
				id.home = "/"
			}
			*name = f[0]
		}
		return !byName
	})
	return found, err
}

func (a accounts) findGroup(group string) (uint32, error) {
	gid, found := parseID(group)
	err := eachLine(a.group, func(line string) bool {
		f := strings.SplitN(line, ":", 4)
		if len(f) < 3 || f[0] != group {
			return true
		}
		n, ok := parseID(f[2])
		if ok {
			gid, found = n, true
		}
		return !ok
	})
	if err == nil && !found {
		err = errUnknownGroup
	}
	return gid, err
}

func (a accounts) groupsOf(name string, primary uint32) ([]uint32, error) {
	var groups []uint32
	err := eachLine(a.group, func(line string) bool {
		f := strings.SplitN(line, ":", 4)
		if len(f) < 4 {
			return true
		}
		gid, ok := parseID(f[2])
		if !ok || gid == primary {
			return true
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if member == name {
				groups = append(groups, gid)
				break
			}
		}
		return len(groups) < maxGroups
	})
	return groups, err
}

// parseID reads a user or group number. The largest is reserved by Linux.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && uint32(n) != ^uint32(0) && s[0] != '+'
}

// eachLine calls f with the lines of a file until f returns false. A file that
// is not there has no lines. Lines that are too long are passed over.
func eachLine(path string, f func(line string) bool) error {
	// Not by package os, which tries to poll every file: this is on the way of
	// every command.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	left := maxAccountFile
	held, skip := 0, false
	for {
		n, err := unix.Read(fd, buf[held:min(len(buf), held+left)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "read", Path: path, Err: err}
		}
		left -= n
		held += n
		rest := string(buf[:held])
		for {
			line, after, ok := strings.Cut(rest, "\n")
			if !ok {
				break
			}
			if !skip && !f(line) {
				return nil
			}
			skip, rest = false, after
		}
		if n == 0 || left == 0 {
			if rest != "" && !skip && left > 0 {
				f(rest)
			}
			return nil
		}
		held = copy(buf, rest)
		if held == len(buf) {
			if len(buf) >= maxAccountLine {
				held, skip = 0, true
			} else {
				buf = append(buf, make([]byte, len(buf))...)
			}
		}
	}
}
