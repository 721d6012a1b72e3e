//go:build commands

// Package cmds lists the programs of the base image that come from u-root; the
// folders beside this file are programs of our own. It is a module of its own so
// that importers of Hutch do not inherit what these programs depend on.
//
// The build program reads the lists from this file and from net.go, and makes
// one executable of each. The build tag is never set.
package cmds

import (
	_ "github.com/u-root/gobusybox/src/cmd/makebb"
)

import (
	_ "github.com/u-root/u-root/cmds/core/base64"
	_ "github.com/u-root/u-root/cmds/core/basename"
	_ "github.com/u-root/u-root/cmds/core/blkid"
	_ "github.com/u-root/u-root/cmds/core/chroot"
	_ "github.com/u-root/u-root/cmds/core/cmp"
	_ "github.com/u-root/u-root/cmds/core/comm"
	_ "github.com/u-root/u-root/cmds/core/cpio"
	_ "github.com/u-root/u-root/cmds/core/dd"
	_ "github.com/u-root/u-root/cmds/core/dirname"
	_ "github.com/u-root/u-root/cmds/core/dmesg"
	_ "github.com/u-root/u-root/cmds/core/echo"
	_ "github.com/u-root/u-root/cmds/core/false"
	_ "github.com/u-root/u-root/cmds/core/free"
	_ "github.com/u-root/u-root/cmds/core/hexdump"
	_ "github.com/u-root/u-root/cmds/core/hostname"
	_ "github.com/u-root/u-root/cmds/core/ip"
	_ "github.com/u-root/u-root/cmds/core/losetup"
	_ "github.com/u-root/u-root/cmds/core/lsfd"
	_ "github.com/u-root/u-root/cmds/core/mkfifo"
	_ "github.com/u-root/u-root/cmds/core/mknod"
	_ "github.com/u-root/u-root/cmds/core/mktemp"
	_ "github.com/u-root/u-root/cmds/core/more"
	_ "github.com/u-root/u-root/cmds/core/mount"
	_ "github.com/u-root/u-root/cmds/core/netstat"
	_ "github.com/u-root/u-root/cmds/core/nohup"
	_ "github.com/u-root/u-root/cmds/core/pidof"
	_ "github.com/u-root/u-root/cmds/core/ping"
	_ "github.com/u-root/u-root/cmds/core/pwd"
	_ "github.com/u-root/u-root/cmds/core/readlink"
	_ "github.com/u-root/u-root/cmds/core/realpath"
	_ "github.com/u-root/u-root/cmds/core/seq"
	_ "github.com/u-root/u-root/cmds/core/shasum"
	_ "github.com/u-root/u-root/cmds/core/sleep"
	_ "github.com/u-root/u-root/cmds/core/strings"
	_ "github.com/u-root/u-root/cmds/core/sync"
	_ "github.com/u-root/u-root/cmds/core/tee"
	_ "github.com/u-root/u-root/cmds/core/time"
	_ "github.com/u-root/u-root/cmds/core/true"
	_ "github.com/u-root/u-root/cmds/core/truncate"
	_ "github.com/u-root/u-root/cmds/core/ts"
	_ "github.com/u-root/u-root/cmds/core/umount"
	_ "github.com/u-root/u-root/cmds/core/uname"
	_ "github.com/u-root/u-root/cmds/core/uniq"
	_ "github.com/u-root/u-root/cmds/core/unshare"
	_ "github.com/u-root/u-root/cmds/core/uptime"
	_ "github.com/u-root/u-root/cmds/core/which"
	_ "github.com/u-root/u-root/cmds/core/yes"
	_ "github.com/u-root/u-root/cmds/exp/ed"
	_ "github.com/u-root/u-root/cmds/exp/traceroute"
	_ "github.com/u-root/u-root/cmds/exp/watch"
)
