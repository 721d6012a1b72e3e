// Command id prints user and group IDs.
//
//	id [-u|-g|-G] [-n] [-r] [user]
package main

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

type identity struct {
	uid, gid int
	groups   []int
}

func main() {
	args, what, names, real := os.Args[1:], byte(0), false, false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		for i := 1; i < len(args[0]); i++ {
			switch c := args[0][i]; c {
			case 'u', 'g', 'G':
				what = c
			case 'n':
				names = true
			case 'r':
				real = true
			default:
				fmt.Fprintln(os.Stderr, "usage: id [-u|-g|-G] [-n] [-r] [user]")
				os.Exit(2)
			}
		}
		args = args[1:]
	}
	who, err := process(real)
	if len(args) > 0 {
		who, err = account(args[0])
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "id: %v\n", err)
		os.Exit(1)
	}
	show := func(id int, name func(int) string) string {
		if n := name(id); names && n != "" {
			return n
		}
		return strconv.Itoa(id)
	}
	switch what {
	case 'u':
		fmt.Println(show(who.uid, userName))
	case 'g':
		fmt.Println(show(who.gid, groupName))
	case 'G':
		var list []string
		for _, g := range who.groups {
			list = append(list, show(g, groupName))
		}
		fmt.Println(strings.Join(list, " "))
	default:
		var list []string
		for _, g := range who.groups {
			list = append(list, both(g, groupName))
		}
		fmt.Printf("uid=%s gid=%s groups=%s\n", both(who.uid, userName), both(who.gid, groupName), strings.Join(list, ","))
	}
}

func process(real bool) (*identity, error) {
	who := &identity{uid: os.Geteuid(), gid: os.Getegid()}
	if real {
		who.uid, who.gid = os.Getuid(), os.Getgid()
	}
	groups, err := os.Getgroups()
	who.add(groups)
	return who, err
}

// account is what a login of the user would have.
func account(name string) (*identity, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("%s: no such user", name)
		}
	}
	who := &identity{}
	who.uid, _ = strconv.Atoi(u.Uid)
	who.gid, _ = strconv.Atoi(u.Gid)
	ids, err := u.GroupIds()
	var groups []int
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		groups = append(groups, n)
	}
	who.add(groups)
	return who, err
}

// add puts the main group first.
func (who *identity) add(groups []int) {
	who.groups = []int{who.gid}
	for _, g := range groups {
		if !slices.Contains(who.groups, g) {
			who.groups = append(who.groups, g)
		}
	}
}

func userName(id int) string {
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return ""
}

func groupName(id int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
		return g.Name
	}
	return ""
}

func both(id int, name func(int) string) string {
	if n := name(id); n != "" {
		return fmt.Sprintf("%d(%s)", id, n)
	}
	return strconv.Itoa(id)
}
