// Package owner finds users and groups for chown and install.
package owner

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// Parse understands owner, owner:group and :group, by name or number. It gives
// -1 for what is not to be changed. "owner:" means the owner's group.
func Parse(spec string) (uid, gid int, err error) {
	uid, gid = -1, -1
	owner, group, hasGroup := strings.Cut(spec, ":")
	if owner != "" {
		u, lookup := user.Lookup(owner)
		if lookup == nil {
			uid, _ = strconv.Atoi(u.Uid)
		} else if uid, err = strconv.Atoi(owner); err != nil || uid < 0 {
			return 0, 0, fmt.Errorf("no user %q", owner)
		}
		if hasGroup && group == "" {
			if lookup != nil {
				return 0, 0, fmt.Errorf("no login group of %q", owner)
			}
			gid, _ = strconv.Atoi(u.Gid)
		}
	}
	if group != "" {
		if g, lookup := user.LookupGroup(group); lookup == nil {
			gid, _ = strconv.Atoi(g.Gid)
		} else if gid, err = strconv.Atoi(group); err != nil || gid < 0 {
			return 0, 0, fmt.Errorf("no group %q", group)
		}
	}
	return uid, gid, nil
}
