// Command reboot ends or restarts the machine. Under the names poweroff and halt
// it is given -p and --halt.
//
//	reboot [-f] [-n] [-p] [--halt]
//
// There is no service manager to tell: files are written back and the kernel is
// asked, with and without -f.
package main

import (
	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

func main() { tool.Main("reboot", run) }

func run(e *tool.Env, args []string) {
	options, _, ok := e.Parse(&tool.Syntax{Letters: "fnpHwd", Long: "force=f no-sync=n poweroff=p halt=H", Usage: "[-f] [-n] [-p] [--halt]", Max: 1}, args)
	if !ok {
		return
	}
	how, write := unix.LINUX_REBOOT_CMD_RESTART, true
	for _, o := range options {
		switch o.Letter {
		case 'p':
			how = unix.LINUX_REBOOT_CMD_POWER_OFF
		case 'H':
			how = unix.LINUX_REBOOT_CMD_HALT
		case 'n':
			write = false
		}
	}
	if write {
		unix.Sync()
	}
	if err := unix.Reboot(how); err != nil {
		e.Fail(err)
	}
}
