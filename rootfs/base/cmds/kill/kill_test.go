package main

import (
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestKill(t *testing.T) {
	tooltest.Run(t, run, []tooltest.Case{
		{Args: "-l 15 TERM 137 sighup", Want: "TERM\n15\nKILL\n1\n"},
		{Args: "-l NONE", Status: 1, Says: "unknown signal"},
		{Args: "-NONE 1", Status: 1, Says: "unknown signal"},
		{Args: "x", Status: 1, Says: "not a process"},
		{Args: "-0 99999999", Status: 1, Says: "no such process"},
		{Args: "", Status: 2, Says: "usage"},
	})
	// What this process ignores, because nohup or the like started it, its
	// children would ignore too; what it handles they do not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Reset()
	for _, option := range [][]string{nil, {"-HUP"}, {"-s", "INT"}, {"-9", "--"}, {"-SIGTERM"}} {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, says, status := tooltest.One(run, "", append(option, strconv.Itoa(cmd.Process.Pid))...)
		cmd.Wait()
		if ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); status != 0 || !ws.Signaled() {
			t.Errorf("%q: status %d, %s, %v", option, status, says, cmd.ProcessState)
		}
	}
}
