package guest

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// The size of a terminal whose size nobody told.
const (
	defaultRows = 24
	defaultCols = 80
)

// openPTY makes a terminal: the agent's end, which polls, and the command's.
func openPTY(rows, cols uint16, id identity) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = setSize(master, rows, cols)
	}
	if err == nil {
		var peer int
		peer, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			slave = os.NewFile(uintptr(peer), "pts")
			// As login does: the terminal is its user's. Nothing depends on it.
			unix.Fchown(peer, int(id.uid), -1)
		}
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

func setSize(tty *os.File, rows, cols uint16) error {
	if rows == 0 {
		rows = defaultRows
	}
	if cols == 0 {
		cols = defaultCols
	}
	rc, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// foreground is the process group in a terminal's foreground, or 0.
func foreground(tty *os.File) int {
	pgrp := 0
	if rc, err := tty.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) { pgrp, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
	}
	return max(pgrp, 0)
}
